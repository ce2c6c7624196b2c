package node

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/postern-link/postern/internal/etcdtest"
)

// startEtcd starts a cluster of one member in this process, and returns its URL.
func startEtcd(t *testing.T, settings ...func(*embed.Config)) string {
	t.Helper()
	conf := etcdtest.Config(t, "node", t.TempDir())
	for _, set := range settings {
		set(conf)
	}
	return etcdtest.Start(t, conf)
}

// wire is a network between a node and its cluster that can be made to swallow all packets: no
// reset, no answer.
type wire struct {
	l       net.Listener
	to      string
	running sync.WaitGroup

	mu    sync.Mutex
	whole chan struct{} // closed while packets pass
	conns map[net.Conn]bool
	ended bool
}

// newWire returns a wire to a URL, and that of its near end.
func newWire(t *testing.T, to string) (*wire, string) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{l: l, to: u.Host, whole: make(chan struct{}), conns: make(map[net.Conn]bool)}
	close(w.whole)
	w.running.Go(w.accept)
	t.Cleanup(w.close)
	return w, u.Scheme + "://" + l.Addr().String()
}

func (w *wire) accept() {
	for {
		near, err := w.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil || !w.keep(near, far) {
			_ = near.Close()
			continue
		}
		w.running.Go(func() { w.copy(near, far) })
		w.running.Go(func() { w.copy(far, near) })
	}
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return !w.ended
}

func (w *wire) copy(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		w.mu.Lock()
		whole := w.whole
		w.mu.Unlock()
		<-whole
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}

// cut swallows all packets from now on; mend lets them pass, those that were held back too.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole = make(chan struct{})
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.whole:
	default:
		close(w.whole)
	}
}

func (w *wire) close() {
	_ = w.l.Close()
	w.mend()
	w.mu.Lock()
	w.ended = true
	for c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}
