package export

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// otlp writes an ExportLogsServiceRequest, which is on the wire what LogsData is. The package of the request itself would bring a server of gRPC
// and its gateway along.
type otlp struct{ node string }

func (otlp) contentType() string { return "application/x-protobuf" }

// flows implements format.
func (o otlp) flows(batch []flow, gap int64) ([]byte, error) {
	all := make([]*logspb.LogRecord, 0, len(batch)+1)
	if gap > 0 {
		all = append(all, flowLog(gapOf(gap), logspb.SeverityNumber_SEVERITY_NUMBER_WARN))
	}
	for _, f := range batch {
		all = append(all, flowLog(f, logspb.SeverityNumber_SEVERITY_NUMBER_INFO))
	}
	return o.request("postern.flows", all)
}

func flowLog(f flow, severity logspb.SeverityNumber) *logspb.LogRecord {
	l := &logspb.LogRecord{
		TimeUnixNano: nano(f.at), ObservedTimeUnixNano: nano(f.at), SeverityNumber: severity, EventName: "postern.flow", Body: text(f.message),
	}
	each("", f.fields, func(key string, v slog.Value) {
		is := text(v.String())
		switch v.Kind() {
		case slog.KindInt64:
			is = whole(v.Int64())
		case slog.KindDuration:
			is = &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: v.Duration().Seconds()}}
		}
		l.Attributes = append(l.Attributes, &commonpb.KeyValue{Key: key, Value: is})
	})
	return l
}

// audit implements format. The body of a record is the entry as it is stored: with the revision and the chain of the one before it makes the
// chain that is with it.
func (o otlp) audit(page []entry) ([]byte, error) {
	all := make([]*logspb.LogRecord, 0, len(page))
	for _, e := range page {
		l := &logspb.LogRecord{
			TimeUnixNano: nano(e.At), ObservedTimeUnixNano: nano(e.At), SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_INFO,
			EventName: "postern.audit", Body: text(string(e.body())),
			Attributes: []*commonpb.KeyValue{
				{Key: "revision", Value: whole(int64(e.Revision))},
				{Key: "chain", Value: text(hex.EncodeToString(e.chain[:]))},
				{Key: "format", Value: whole(int64(e.line.Bytes[0]))},
			},
		}
		for _, a := range [...][2]string{{"actor", e.Actor}, {"tenant", e.Tenant}, {"from", e.From}, {"action", e.Action}, {"object", e.Object}, {"reason", e.Reason}, {"result", e.Result}} {
			if a[1] != "" {
				l.Attributes = append(l.Attributes, &commonpb.KeyValue{Key: a[0], Value: text(a[1])})
			}
		}
		all = append(all, l)
	}
	return o.request("postern.audit", all)
}

func (o otlp) request(scope string, all []*logspb.LogRecord) ([]byte, error) {
	return proto.Marshal(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			{Key: "service.name", Value: text("postern")},
			{Key: "service.instance.id", Value: text(o.node)},
			{Key: "host.name", Value: text(o.node)},
		}},
		ScopeLogs: []*logspb.ScopeLogs{{Scope: &commonpb.InstrumentationScope{Name: scope}, LogRecords: all}},
	}}})
}

func nano(t time.Time) uint64 { return uint64(max(0, t.UnixNano())) }

func whole(n int64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}
}

// text is a string, or bytes where it is none to protobuf, which takes UTF-8 alone.
func text(s string) *commonpb.AnyValue {
	if !utf8.ValidString(s) {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte(s)}}
	}
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

// rejected implements format: rejected_log_records of partial_success, fields 1 and 1. An answer that is none of that says nothing.
func (otlp) rejected(answer []byte) int64 {
	partial, err := field(answer, 1, protowire.BytesType)
	if err != nil {
		return 0
	}
	n, err := field(partial, 1, protowire.VarintType)
	if err != nil {
		return 0
	}
	rejected, size := protowire.ConsumeVarint(n)
	if size < 0 || int64(rejected) < 0 {
		return 0
	}
	return min(int64(rejected), max(batchRecords, pageEntries)) // of what was sent
}

// field returns the first field of a message with a number and type: the content of bytes, a varint as it is written.
func field(message []byte, number protowire.Number, as protowire.Type) ([]byte, error) {
	for len(message) > 0 {
		is, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(is, kind, message); n < 0 {
			return nil, protowire.ParseError(n)
		}
		if is == number && kind == as {
			if as == protowire.BytesType {
				content, _ := protowire.ConsumeBytes(message)
				return content, nil
			}
			return message[:n], nil
		}
		message = message[n:]
	}
	return nil, fmt.Errorf("no field %d", number)
}
