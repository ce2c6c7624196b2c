package export

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"time"

	"github.com/postern-link/postern/store"
)

// format is how records are written for a kind of receiver.
type format interface {
	contentType() string
	// flows writes a batch, and before it that so many records are missing, unless none is.
	flows(batch []flow, gap int64) ([]byte, error)
	audit(page []entry) ([]byte, error)
	// rejected returns how many records of a request the answer says were not taken.
	rejected(answer []byte) int64
}

// gapMessage says that records are missing.
const gapMessage = "flow records dropped"

// gapOf is the record of a gap.
func gapOf(n int64) flow {
	return flow{at: time.Now(), message: gapMessage, fields: slog.GroupValue(slog.Int64("records", n))}
}

// each yields the fields of a record, those of groups with the group's name before theirs, in the words of the log.
func each(prefix string, v slog.Value, yield func(key string, v slog.Value)) {
	for _, a := range v.Resolve().Group() {
		if v := a.Value.Resolve(); v.Kind() == slog.KindGroup {
			each(prefix+a.Key+".", v, yield)
		} else {
			yield(prefix+a.Key, v)
		}
	}
}

// webhook writes JSON, a record a line.
type webhook struct{ node string }

func (webhook) contentType() string { return "application/x-ndjson" }

func (webhook) rejected([]byte) int64 { return 0 }

// flows implements format.
func (w webhook) flows(batch []flow, gap int64) (b []byte, err error) {
	if gap > 0 {
		b = w.line(b, gapOf(gap))
	}
	for _, f := range batch {
		b = w.line(b, f)
	}
	return b, nil
}

func (w webhook) line(b []byte, f flow) []byte {
	b = append(b, `{"record":"flow","time":`...)
	b = appendJSON(b, f.at.UTC().Format(time.RFC3339Nano))
	b = appendJSON(append(b, `,"node":`...), w.node)
	b = appendJSON(append(b, `,"message":`...), f.message)
	each("", f.fields, func(key string, v slog.Value) {
		b = append(appendJSON(append(b, ','), key), ':')
		switch v.Kind() {
		case slog.KindInt64:
			b = strconv.AppendInt(b, v.Int64(), 10)
		case slog.KindDuration:
			b = strconv.AppendFloat(b, v.Duration().Seconds(), 'f', -1, 64)
		default:
			b = appendJSON(b, v.String())
		}
	})
	return append(b, "}\n"...)
}

// appendJSON appends a string of JSON.
func appendJSON(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // of a string always can
	return append(b, text...)
}

// auditLine is an entry of the audit record: the fields of "postern audit export", which "postern audit verify" reads, and what they hold
// in a form to read.
type auditLine struct {
	Record   string          `json:"record"`
	Node     string          `json:"node"`
	Revision uint64          `json:"revision"`
	Chain    store.Chain     `json:"chain"`
	Line     []byte          `json:"line"`
	Entry    json.RawMessage `json:"entry"`
}

// audit implements format.
func (w webhook) audit(page []entry) (b []byte, err error) {
	for _, e := range page {
		text, err := json.Marshal(auditLine{Record: "audit", Node: w.node, Revision: e.Revision, Chain: e.chain, Line: e.line.Bytes, Entry: e.body()})
		if err != nil {
			return nil, err
		}
		b = append(append(b, text...), '\n')
	}
	return b, nil
}
