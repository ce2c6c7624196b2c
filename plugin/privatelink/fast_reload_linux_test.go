package privatelink_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/plugin/privatelink"
)

// holder is an upstream that answers nothing until it is released.
type holder struct {
	conn  net.PacketConn
	asked chan struct{} // has a value once it is asked

	mu       sync.Mutex
	waiting  []func()
	released bool
}

func startHolder(t *testing.T) *holder {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := &holder{conn: conn, asked: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			r := new(dns.Msg)
			if r.Unpack(buf[:n]) != nil {
				continue
			}
			h.take(r, from)
		}
	}()
	return h
}

func (h *holder) take(r *dns.Msg, from net.Addr) {
	answer := func() {
		if b, err := new(dns.Msg).SetRcode(r, dns.RcodeRefused).Pack(); err == nil {
			_, _ = h.conn.WriteTo(b, from)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		answer()
		return
	}
	h.waiting = append(h.waiting, answer)
	if strings.HasPrefix(r.Question[0].Name, "held") {
		select {
		case h.asked <- struct{}{}:
		default:
		}
	}
}

func (h *holder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
	for _, answer := range h.waiting {
		answer()
	}
}

// TestFastpathReloadAtOnce: what a reload puts before privatelink, or in its place, is asked as soon as the new servers are there,
// though queries hold the old ones back for seconds.
func TestFastpathReloadAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name string
		next func(port uint16) string
		done func(m *dns.Msg) bool
		want string // of the metric
	}{
		{"acl", func(port uint16) string {
			return string(fastCorefile(port, "", "acl {\nblock net 127.0.0.0/8\n}").Body())
		}, func(m *dns.Msg) bool { return m.Rcode == dns.RcodeRefused }, "plugin"},
		{"without privatelink", func(port uint16) string {
			return fmt.Sprintf(".:%d {\nbind 127.0.0.1\ntemplate ANY ANY {\nrcode NOTIMP\n}\n}\n", port)
		}, func(m *dns.Msg) bool { return m.Rcode == dns.RcodeNotImplemented }, "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			port := freeport.Get(t)
			at := fmt.Sprintf("127.0.0.1:%d", port)
			upstream := startHolder(t)
			instance := startInstance(t, fastCorefile(port, "", "forward . "+upstream.conn.LocalAddr().String()+" {\nmax_fails 0\nprefer_udp\n}"))
			defer func() { end(t, instance) }()
			c := dial(t, "127.1.0.9", at)
			for range 10 {
				c.ask("contoso.database.windows.net.", dns.TypeA)
			}
			hold(t, at)
			select {
			case <-upstream.asked:
			case <-time.After(10 * time.Second):
				t.Fatal("the upstream isn't asked")
			}
			type result struct {
				instance *caddy.Instance
				err      error
			}
			over := make(chan result, 1)
			go func() {
				next, err := instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(tc.next(port))})
				over <- result{next, err}
			}()
			for deadline := time.Now().Add(20 * time.Second); !tc.done(c.ask("contoso.database.windows.net.", dns.TypeA)); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the reload doesn't take effect")
				}
			}
			for deadline := time.Now().Add(10 * time.Second); fastGauge(t, "dns://"+at) != tc.want; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("reason %q, want %q", fastGauge(t, "dns://"+at), tc.want)
				}
			}
			for range 20 {
				if m := c.ask("contoso.database.windows.net.", dns.TypeA); !tc.done(m) {
					t.Fatalf("the old answer again: %v", m)
				}
			}
			select {
			case <-over:
				t.Error("it takes effect when the old servers have ended")
			case <-time.After(300 * time.Millisecond): // they still wait for the upstream
				upstream.release()
				r := <-over
				if r.err != nil {
					t.Fatal(r.err)
				}
				instance = r.instance
			}
		})
	}
}

// TestReloadSettings: settings of privatelink and objects of the same Corefile take effect together, on the fast path and off it, though queries hold
// the old servers back: nobody has an answer of new settings and old objects, or the other way round.
func TestReloadSettings(t *testing.T) {
	port := freeport.Get(t)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	upstream := startHolder(t)
	// The network of the clients is another one by name and by addresses; the address of its endpoint changes with it.
	corefile := func(named bool) caddy.Input {
		property, network, address := "", "127.1.0.0/16 {", "10.200.0.5"
		if named {
			property, network, address = "network corp\nttl 77", "127.2.0.0/16 {\nby_listener", "10.200.0.6"
		}
		text := string(fastCorefile(port, property, "forward . "+upstream.conn.LocalAddr().String()+" {\nmax_fails 0\nprefer_udp\n}").Body())
		text = strings.Replace(text, "127.1.0.0/16 {", network, 1)
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(strings.Replace(text, "address 10.200.0.5", "address "+address, 1))}
	}
	instance := startInstance(t, corefile(false))
	defer func() { end(t, instance) }()
	c := dial(t, "127.1.0.9", at)
	// answer returns the TTL and the address of an answer, which must belong together.
	answer := func() uint32 {
		t.Helper()
		m := c.ask("contoso.database.windows.net.", dns.TypeA)
		if len(m.Answer) == 2 {
			ttl, address := m.Answer[1].Header().Ttl, m.Answer[1].(*dns.A).A.String()
			if ttl == 10 && address == "10.200.0.5" || ttl == 77 && address == "10.200.0.6" {
				return ttl
			}
		}
		t.Fatalf("neither the old answer nor the new one: %v", m)
		return 0
	}
	if ttl := answer(); ttl != 10 {
		t.Fatalf("TTL %d to begin with", ttl)
	}
	hold(t, at)
	select {
	case <-upstream.asked:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream isn't asked")
	}
	named := true
	for round := range 6 {
		over := make(chan error, 1)
		go func() {
			next, err := instance.Restart(corefile(named))
			if err == nil {
				instance = next
			}
			over <- err
		}()
		held := time.After(300 * time.Millisecond)
		for done := false; !done; {
			answer()
			select {
			case <-held:
				upstream.release() // the old servers have waited for it in the first round
			case err := <-over:
				if err != nil {
					t.Fatal(err)
				}
				done = true
			default:
			}
		}
		if ttl := answer(); (ttl == 77) != named {
			t.Fatalf("round %d: TTL %d after the reload", round, ttl)
		}
		named = !named
	}
}

// hold keeps the servers of an address from ending: queries by TCP go on and on, which nobody answers.
func hold(t *testing.T, at string) {
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 0, 8)}}
	stop := make(chan struct{})
	done := make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if conn, err := from.Dial("tcp", at); err == nil {
				defer conn.Close()
				_ = (&dns.Conn{Conn: conn}).WriteMsg(new(dns.Msg).SetQuestion(fmt.Sprintf("held%d.example.", i), dns.TypeA))
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
}

// TestFastpathMetric: the metric says what is in force: nothing of a reload that fails, and nothing of addresses that are no more.
func TestFastpathMetric(t *testing.T) {
	one, two := freeport.Get(t), freeport.Get(t)
	at := func(port uint16) string { return fmt.Sprintf("dns://127.0.0.1:%d", port) }
	in := fastCorefile(one, "", "errors")
	both := func(properties string) caddy.Input {
		second := fmt.Sprintf(".:%d {\nbind 127.0.0.1\nprivatelink {\n%s\n}\n}\n", two, properties)
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: append(bytes.Clone(in.Body()), second...)}
	}
	instance := startInstance(t, both(""))
	defer func() { end(t, instance) }()
	check := func(what string, server, want string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); fastGauge(t, server) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s has reason %q, want %q", what, server, fastGauge(t, server), want)
			}
		}
	}
	check("start", at(one), "")
	check("start", at(two), "")
	// It is staged with the fast path off, and fails when it is to listen: the port is somebody else's.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := string(both("fastpath off").Body()) + fmt.Sprintf("\n.:%d {\nbind 127.0.0.1\nprivatelink\n}\n", taken.Addr().(*net.TCPAddr).Port)
	if _, err := instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(bad)}); err == nil {
		t.Fatal("a port that is taken was taken")
	}
	for server, want := range map[string]string{at(one): "", at(two): "", at(uint16(taken.Addr().(*net.TCPAddr).Port)): "none"} {
		if got := fastGauge(t, server); got != want {
			t.Errorf("after a reload that failed %s has reason %q, want %q", server, got, want)
		}
	}
	next, err := instance.Restart(in)
	if err != nil {
		t.Fatal(err)
	}
	instance = next
	check("removed", at(two), "none")
	if n := privatelink.FastAnswered(t, at(two)); n != 0 {
		t.Errorf("an address that is no more has answered %v queries", n)
	}
	check("kept", at(one), "")
}
