package proxy

import (
	"context"
	"errors"
	"net"
	"time"
)

// Pauses of the accept loop after an error: doubled from the first to the last.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// accept is the goroutine of a listener. It ends when the listener is closed, and only then: an
// error such as EMFILE, ENFILE, ENOBUFS or ECONNABORTED passes.
func (p *Proxy) accept(ctx context.Context, l *listener) {
	var pause time.Duration
	for {
		conn, peer, local, err := l.accepting.Accept()
		if err == nil {
			pause = 0
			p.flows.Go(func() { p.serve(conn, peer, local) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.metrics.acceptErrors.Inc()
		if pause == 0 {
			p.log.Warn("accepting connections failed, trying again", "address", l.addr, "error", err)
		}
		pause = min(max(2*pause, minPause), maxPause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}
