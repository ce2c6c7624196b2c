package external

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

// A program that is written with go-plugin's server prints into a stream of the connection, once it has said its
// address: plugin.GRPCStdio, whose messages have a channel (1, varint: 1 for stdout, 2 for stderr) and bytes (2).
const stdioMethod = "/plugin.GRPCStdio/StreamStdio"

// stdioPerSecond is how many bytes of that are read in a second. Beyond it the program waits with what it prints,
// so that printing costs us no more than that.
const stdioPerSecond = 1 << 20

// rawMessage is a message as it is on the wire.
type rawMessage []byte

// rawCodec passes messages on as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) {
	m, ok := v.(*rawMessage)
	if !ok {
		return nil, errors.New("not a raw message")
	}
	return *m, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	m, ok := v.(*rawMessage)
	if !ok {
		return errors.New("not a raw message")
	}
	*m = append((*m)[:0], data...)
	return nil
}

func (rawCodec) Name() string { return "proto" }

// readStdio reads what a program prints until the connection is closed. A program that has no such stream prints
// to its standard streams, which are read anyway.
func readStdio(conn *grpc.ClientConn, out *output) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, stdioMethod, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return
	}
	if err := stream.SendMsg(&rawMessage{}); err != nil {
		return
	}
	if err := stream.CloseSend(); err != nil {
		return
	}
	stdout, stderr := out.stream(), out.stream()
	var m rawMessage
	for budget, since := stdioPerSecond, time.Now(); ; {
		if err := stream.RecvMsg(&m); err != nil {
			stdout.flush()
			stderr.flush()
			return
		}
		channel, data, ok := parseStdio(m)
		switch {
		case !ok:
			return
		case channel == 1:
			_, _ = stdout.Write(data)
		default:
			_, _ = stderr.Write(data)
		}
		if budget -= len(m) + 64; budget <= 0 {
			select {
			case <-stream.Context().Done():
			case <-time.After(time.Second - min(time.Since(since), time.Second)):
			}
			budget, since = stdioPerSecond, time.Now()
		}
	}
}

// parseStdio reads a message of the stream; false where it is none.
func parseStdio(m []byte) (channel uint64, data []byte, ok bool) {
	for len(m) > 0 {
		field, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return 0, nil, false
		}
		m = m[n:]
		switch {
		case field == 1 && typ == protowire.VarintType:
			channel, n = protowire.ConsumeVarint(m)
		case field == 2 && typ == protowire.BytesType:
			data, n = protowire.ConsumeBytes(m)
		default:
			n = protowire.ConsumeFieldValue(field, typ, m)
		}
		if n < 0 {
			return 0, nil, false
		}
		m = m[n:]
	}
	return channel, data, true
}
