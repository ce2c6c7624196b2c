package integration

import (
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// recorder stands where a target is, in front of a real server: it keeps every byte that comes from a client and
// passes all on, in both directions. It connects to the server when the first byte has come, so that what looks whether
// a target accepts never gets further.
type recorder struct {
	host *host
	to   string
	ln   net.Listener
	wait sync.WaitGroup

	mu    sync.Mutex
	flows []*recorded
	grew  chan struct{} // closed and renewed with each flow
}

// recorded is one connection that came.
type recorded struct {
	peer string
	over chan struct{} // closed when it has ended, in both directions
	mu   sync.Mutex
	got  []byte
}

// record starts a recorder at addr of a host.
func (g *ground) record(host, addr, to string) *recorder {
	g.t.Helper()
	r := &recorder{host: g.net.hosts[host], to: to, ln: g.listen(host, addr), grew: make(chan struct{})}
	r.wait.Go(r.serve)
	g.t.Cleanup(func() {
		r.ln.Close()
		r.wait.Wait()
	})
	return r
}

func (r *recorder) serve() {
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			return
		}
		f := &recorded{peer: conn.RemoteAddr().String(), over: make(chan struct{})}
		r.mu.Lock()
		r.flows = append(r.flows, f)
		close(r.grew)
		r.grew = make(chan struct{})
		r.mu.Unlock()
		r.wait.Go(func() {
			defer close(f.over)
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute)) // nothing here lasts longer
			r.relay(conn.(*net.TCPConn), f)
		})
	}
}

// relay passes on what comes until both sides have ended.
func (r *recorder) relay(client *net.TCPConn, f *recorded) {
	b := make([]byte, 32<<10)
	n, err := client.Read(b)
	if n == 0 {
		return
	}
	f.note(b[:n])
	c, dialErr := r.host.dial(r.to, 10*time.Second)
	if dialErr != nil {
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		if _, err := io.Copy(client, server); err != nil {
			client.Close()
		}
		_ = client.CloseWrite()
	}()
	for {
		_, _ = server.Write(b[:n]) // one that has ended takes nothing, and all is kept all the same
		if err != nil {
			break
		}
		n, err = client.Read(b)
		f.note(b[:n])
	}
	if err == io.EOF {
		_ = server.CloseWrite()
	} else {
		server.Close()
	}
	<-back
}

func (f *recorded) note(b []byte) {
	f.mu.Lock()
	f.got = append(f.got, b...)
	f.mu.Unlock()
}

// mark is a point in the order of connections for since.
func (r *recorder) mark() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.flows)
}

// since returns what each connection brought that was there by now and came after the mark, once they have ended. Those
// that brought nothing are left out: nodes look whether targets accept. A connection that the kernel took before this
// one of ours is accepted before it, so none is missed.
func (r *recorder) since(t *testing.T, mark int) [][]byte {
	t.Helper()
	fence, err := r.host.dial(r.ln.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer fence.Close()
	late := time.After(30 * time.Second)
	var flows []*recorded
	for last := -1; last < 0; {
		r.mu.Lock()
		flows, last = r.flows[mark:], slices.IndexFunc(r.flows[mark:], func(f *recorded) bool { return f.peer == fence.LocalAddr().String() })
		grew := r.grew
		r.mu.Unlock()
		if last >= 0 {
			flows = flows[:last]
			break
		}
		select {
		case <-grew:
		case <-late:
			t.Fatal("a recorder doesn't accept")
		}
	}
	var got [][]byte
	for _, f := range flows {
		select {
		case <-f.over:
		case <-late:
			t.Fatalf("a connection of %s with %d bytes doesn't end", f.peer, len(f.got))
		}
		if len(f.got) > 0 {
			got = append(got, f.got)
		}
	}
	return got
}
