package proxy

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// P12: no new flows, the live ones may end by themselves, those left are reset at the limit.
func TestDrain(t *testing.T) {
	t.Run("P12 flows end by themselves", func(t *testing.T) {
		w, client, far := pair(t, Settings{})
		done := make(chan struct{})
		go func() {
			w.proxy.Drain(t.Context())
			close(done)
		}()
		eventually(t, "no new flows", func() bool {
			c, err := net.DialTimeout("tcp", "127.77.0.1:7001", patience)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		io.WriteString(client, "bye")
		client.CloseWrite()
		if b, err := io.ReadAll(far); string(b) != "bye" || err != nil {
			t.Errorf("%q, error %v", b, err)
		}
		far.Close()
		<-done
		w.proxy.Update(w.now.Load())
		checkListening(t, w)
	})
	for name, end := range map[string]struct {
		settings Settings
		ctx      func() (context.Context, context.CancelFunc)
	}{
		"P12 drain timeout": {Settings{DrainTimeout: 50 * time.Millisecond}, func() (context.Context, context.CancelFunc) {
			return context.WithCancel(context.Background())
		}},
		"P13 context": {Settings{}, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 50*time.Millisecond)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, client, far := pair(t, end.settings)
			w.stall(t, far) // P13: a blocked writer
			ctx, cancel := end.ctx()
			defer cancel()
			w.proxy.Drain(ctx)
			if !isReset(client) || w.proxy.Flows() != 0 || len(w.log.lines("flow ended", "reason=drain")) != 1 {
				t.Error("the flow wasn't reset, or has no line")
			}
		})
	}
}

// Nothing is left after Close: the descriptors are those of before.
func TestCloseLeavesNothing(t *testing.T) {
	before := descriptors(t)
	g := newTarget(t)
	w := newWorld(t, Settings{}, service("svc", 7001, g.addr()), endpoint("e", "svc", nextAddr(t)))
	c := dial(t, w.first())
	c.Write(random(1 << 20)) // through a pipe
	far, _ := g.next()
	io.CopyN(io.Discard, far, 1<<20-1)
	w.proxy.Close()
	w.proxy.Close()
	if !isReset(c) {
		t.Error("not reset")
	}
	c.Close()
	far.Close()
	g.close() // with the probes that it accepted
	eventually(t, "the descriptors are those of before", func() bool { return descriptors(t) <= before })
}
