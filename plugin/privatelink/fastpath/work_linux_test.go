package fastpath

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// waiting is a backend whose answers to names that begin with "wait" wait until released is closed.
type waiting struct {
	*plugins
	released chan struct{}
}

func (b *waiting) Serve(w dns.ResponseWriter, r *dns.Msg, learn bool) *Answer {
	if strings.HasPrefix(r.Question[0].Name, "wait") {
		<-b.released
	}
	return b.plugins.Serve(w, r, learn)
}

// newSocketFor returns a socket that nobody reads yet, and whose target has every query answered by a backend.
func newSocketFor(t testing.TB, b Backend) *socket {
	t.Helper()
	g := &Group{addr: netip.MustParseAddrPort("127.0.0.1:1")}
	target := NewTarget(b)
	target.Always = true
	g.target.Store(target)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSocket(g, conn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPluginsThatWait: wherever queries stand for which the plugins have to wait, all others of the same burst are answered
// meanwhile, and those in the end.
func TestPluginsThatWait(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 40 {
		b := &waiting{newPlugins(), make(chan struct{})}
		s := newSocketFor(t, b)
		client := socketOn(t, "udp4", "127.0.0.1:0")
		n, waits := 1+r.IntN(2*batch), 0
		for i := range n {
			name := fmt.Sprintf("go%d.example.", i)
			if r.IntN(4) == 0 {
				name = fmt.Sprintf("wait%d.example.", i)
				waits++
			}
			if _, err := client.WriteTo(wire(t, name, nil), s.conn.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		go s.run()
		seen := make(map[string]bool)
		take := func(count int) {
			t.Helper()
			buf := make([]byte, maxWire)
			for range count {
				size, err := client.Read(buf)
				m := new(dns.Msg)
				if err == nil {
					err = m.Unpack(buf[:size])
				}
				if err != nil {
					t.Fatalf("seed %d: %d of %d answers, of which %d wait: %v", seed, len(seen), n, waits, err)
				}
				seen[m.Question[0].Name] = true
			}
		}
		take(n - waits)
		for name := range seen {
			if strings.HasPrefix(name, "wait") {
				t.Fatalf("seed %d: %s is answered", seed, name)
			}
		}
		close(b.released)
		take(waits)
		if len(seen) != n {
			t.Errorf("seed %d: %d names answered, want %d", seed, len(seen), n)
		}
		s.stop(10 * time.Second)
	}
}

// TestReadingWaits: when very many queries wait for a worker no more are read, until fewer do.
func TestReadingWaits(t *testing.T) {
	t.Parallel()
	s := newSocketFor(t, newPlugins())
	w := s.work
	w.mu.Lock()
	w.coming = true // one that never comes
	w.mu.Unlock()
	query := wire(t, "a.example.", nil)
	some := func(n int) (all []*miss) {
		for range n {
			all = append(all, &miss{query: query})
		}
		return all
	}
	w.add(some(maxWaiting))
	added := make(chan struct{})
	go func() { w.add(some(1)); close(added) }()
	select {
	case <-added:
		t.Error("there is no end to queries that wait")
	case <-time.After(50 * time.Millisecond):
	}
	go w.run()
	select {
	case <-added:
	case <-time.After(10 * time.Second):
		t.Error("reading doesn't go on")
	}
	s.conn.Close()
	close(s.idle)
	w.end(10 * time.Second)
	if w.open != 0 {
		t.Errorf("%d queries are open", w.open)
	}
}

// TestAnswersLeaveTogether: answers that were kept for a worker that comes all leave, in order, also more than one system call takes,
// and what a closed socket doesn't take leaves nothing behind.
func TestAnswersLeaveTogether(t *testing.T) {
	t.Parallel()
	s := newSocketFor(t, newPlugins())
	client := socketOn(t, "udp4", "127.0.0.1:0")
	at := client.LocalAddr().(*net.UDPAddr)
	to := &parcel{size: unix.SizeofSockaddrInet4}
	*(*unix.RawSockaddrInet4)(unsafe.Pointer(&to.to)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: mmsg.Port(uint16(at.Port)), Addr: [4]byte(at.IP.To4())}
	w := s.work
	w.coming = true
	const n = 2*batch + 5
	for i := range n {
		if err := w.reply(to, bytes.Repeat([]byte{byte(i)}, 20+i%3)); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.answers) != n {
		t.Fatalf("%d answers wait, want %d", len(w.answers), n)
	}
	go w.run()
	buf := make([]byte, 100)
	for i := range n {
		size, err := client.Read(buf)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if size != 20+i%3 || buf[0] != byte(i) {
			t.Fatalf("answer %d: %d bytes of %d", i, size, buf[0])
		}
	}
	w.end(10 * time.Second)
	s.conn.Close()
	for range 2 { // what can't be sent leaves nothing behind
		w.mu.Lock()
		w.answers = append(w.answers, make([]reply, batch)...)
		for i := range w.answers {
			w.answers[i] = reply{to, []byte{1}}
		}
		w.flush()
		if w.out.queued != 0 || len(w.answers) != 0 {
			t.Errorf("%d answers are left", w.out.queued)
		}
		w.mu.Unlock()
	}
}
