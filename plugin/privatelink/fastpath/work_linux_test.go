package fastpath

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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

// TestTooManyWait: of more queries than may wait for a processor the last are dropped and counted, what the table has is answered
// meanwhile, and all that wait in the end.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	s, known := newServed(t)
	target := s.group.target.Load()
	target.Dropped = prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped"})
	s.work.coming = true                                        // one that never comes
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil { // of socketOn
		t.Fatal(err)
	}
	go s.run()
	client := socketOn(t, "udp4", "127.0.0.1:0")
	send := func(b []byte) {
		t.Helper()
		if _, err := client.WriteTo(b, s.conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, maxWire)
	const more = 40
	unknown := wire(t, "unknown.example.", nil)
	for i := range maxWaiting + more {
		send(unknown)
		if i%20 == 0 { // not more than the kernel keeps
			send(known)
			if n, err := client.Read(buf); err != nil || !bytes.Contains(buf[:n], []byte("\x05known")) {
				t.Fatalf("query %d: answer %q, %v", i, buf[:n], err)
			}
		}
	}
	send(known)
	if _, err := client.Read(buf); err != nil {
		t.Fatal(err)
	}
	go s.work.run()
	s.stop(10 * time.Second)
	if n := testutil.ToFloat64(target.Dropped); n != more {
		t.Errorf("%v queries were dropped, want %d", n, more)
	}
	if s.work.open != 0 {
		t.Errorf("%d queries are open", s.work.open)
	}
	for i := range 100 { // the kernel doesn't keep many more for the client
		if n, err := client.Read(buf); err != nil || !bytes.Contains(buf[:n], []byte("\x07unknown")) {
			t.Fatalf("answer %d: %q, %v", i, buf[:n], err)
		}
	}
}

// endless is a backend that takes a while to answer nothing, and has another query come with each, until it is over.
type endless struct {
	*plugins
	work *work
	over atomic.Bool
}

func (b *endless) Serve(_ dns.ResponseWriter, r *dns.Msg, _ bool) *Answer {
	if query, err := r.Pack(); err == nil && !b.over.Load() {
		b.work.add([]*miss{{query: query}})
		for began := time.Now(); time.Since(began) < 20*time.Microsecond; {
		}
	}
	return nil
}

// TestAnswersAmongSilence: an answer leaves also where no others come and the queries never end, with one processor for it all.
func TestAnswersAmongSilence(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b := &endless{plugins: newPlugins()}
	s := newSocketFor(t, b)
	b.work = s.work
	client := socketOn(t, "udp4", "127.0.0.1:0")
	s.work.coming = true       // one that hasn't come yet
	for range maxWaiting / 4 { // more than there will ever be workers
		s.work.add([]*miss{{query: wire(t, "silent.example.", nil)}})
	}
	if err := s.work.reply(parcelFor(client), []byte("answer")); err != nil {
		t.Fatal(err)
	}
	go s.work.run()
	buf := make([]byte, 100)
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	b.over.Store(true)
	close(s.idle)
	s.work.end(10 * time.Second)
	s.conn.Close()
}

// TestPluginsThatEnd: a plugin that ends its goroutine takes nothing with it.
func TestPluginsThatEnd(t *testing.T) {
	t.Parallel()
	s := newSocketFor(t, ending{newPlugins()})
	client := socketOn(t, "udp4", "127.0.0.1:0")
	for i := range 20 {
		for _, name := range []string{"end.example.", "go.example."} {
			if _, err := client.WriteTo(wire(t, name, nil), s.conn.LocalAddr()); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	go s.run()
	buf := make([]byte, maxWire)
	for i := range 20 {
		if _, err := client.Read(buf); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	began := time.Now()
	s.stop(time.Minute)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("ended after %v: what has ended is waited for", took)
	}
}

// ending is a backend that ends the goroutine for names that begin with "end".
type ending struct{ *plugins }

func (b ending) Serve(w dns.ResponseWriter, r *dns.Msg, learn bool) *Answer {
	if strings.HasPrefix(r.Question[0].Name, "end") {
		runtime.Goexit()
	}
	return b.plugins.Serve(w, r, learn)
}

// parcelFor returns where answers to a client go.
func parcelFor(client *net.UDPConn) *parcel {
	at := client.LocalAddr().(*net.UDPAddr)
	to := &parcel{size: unix.SizeofSockaddrInet4}
	*(*unix.RawSockaddrInet4)(unsafe.Pointer(&to.to)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: mmsg.Port(uint16(at.Port)), Addr: [4]byte(at.IP.To4())}
	return to
}

// TestAnswersLeaveTogether: answers that were kept for a worker that comes all leave, in order, also more than one system call takes,
// and what a closed socket doesn't take leaves nothing behind.
func TestAnswersLeaveTogether(t *testing.T) {
	t.Parallel()
	s := newSocketFor(t, newPlugins())
	client := socketOn(t, "udp4", "127.0.0.1:0")
	to := parcelFor(client)
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
