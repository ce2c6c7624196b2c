package resolve

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve answers questions on a port of 127.0.0.1, over UDP and TCP.
func serve(t *testing.T, f dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: f}, {PacketConn: p, Handler: f}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			s.Shutdown()
			<-done
		})
	}
	return netip.MustParseAddrPort(l.Addr().String())
}

// zone answers from records, and otherwise that there is nothing.
func zone(t *testing.T, records ...string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		r := reply(t, m.Question[0], 0, records...)
		r.Id = m.Id
		r.Answer = slices.DeleteFunc(r.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype != m.Question[0].Qtype })
		w.WriteMsg(r)
	}
}

func asker(servers ...netip.AddrPort) *Asker {
	return &Asker{Servers: func() ([]netip.AddrPort, error) { return servers, nil }}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	good := zone(t, "db.example. 60 A 10.0.0.1", "db.example. 30 AAAA 2001:db8::1")
	for name, tt := range map[string]struct {
		servers []dns.HandlerFunc
		v4, v6  string
		bad     string // part of both errors
	}{
		"both families": {[]dns.HandlerFunc{good}, "10.0.0.1", "2001:db8::1", ""},
		"none":          {[]dns.HandlerFunc{zone(t)}, "", "", ""},
		"the next server": {[]dns.HandlerFunc{func(w dns.ResponseWriter, m *dns.Msg) {
			w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeServerFailure))
		}, good}, "10.0.0.1", "2001:db8::1", ""},
		"none of them": {[]dns.HandlerFunc{func(w dns.ResponseWriter, m *dns.Msg) {
			w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeRefused))
		}}, "", "", "REFUSED"},
		"of another name": {[]dns.HandlerFunc{func(w dns.ResponseWriter, m *dns.Msg) {
			m.Question[0].Name = "evil.example."
			zone(t, "evil.example. 60 A 10.0.0.66")(w, m)
		}}, "", "", errForeign.Error()},
		"too long for a datagram": {[]dns.HandlerFunc{func(w dns.ResponseWriter, m *dns.Msg) {
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				r := new(dns.Msg).SetReply(m)
				r.Truncated = true
				w.WriteMsg(r)
				return
			}
			good(w, m)
		}}, "10.0.0.1", "2001:db8::1", ""},
		"nobody": {nil, "", "", "no server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var servers []netip.AddrPort
			for _, f := range tt.servers {
				servers = append(servers, serve(t, f))
			}
			f := asker(servers...).Lookup(t.Context(), "db.example")
			for _, one := range []struct {
				half Half
				want string
			}{{f.V4, tt.v4}, {f.V6, tt.v6}} {
				if tt.bad != "" {
					if one.half.Err == nil || !strings.Contains(one.half.Err.Error(), tt.bad) {
						t.Errorf("error %v", one.half.Err)
					}
				} else if one.half.Err != nil || !slices.Equal(one.half.Addrs, addrs(strings.Fields(one.want)...)) {
					t.Errorf("%+v, want %s", one.half, one.want)
				}
			}
		})
	}
}

// A server that says nothing is waited for no longer than until the lookup is called off.
func TestLookupIsCalledOff(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 8)
	server := serve(t, func(dns.ResponseWriter, *dns.Msg) { asked <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	began := time.Now()
	if f := asker(server).Lookup(ctx, "db.example"); f.V4.Err == nil {
		t.Errorf("%+v", f)
	}
	if took := time.Since(began); took > oneTry {
		t.Errorf("it took %v", took)
	}
}

// Whenever a lookup is called off, the server isn't waited for: not between the dial and the question either.
func TestLookupIsCalledOffAnyTime(t *testing.T) {
	t.Parallel()
	server := serve(t, func(dns.ResponseWriter, *dns.Msg) {})
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		began, calledOff := time.Now(), make(chan time.Duration, 1)
		after := rand.N(300 * time.Microsecond)
		go func() {
			for time.Since(began) < after { // a timer would be too late
			}
			cancel()
			calledOff <- time.Since(began)
		}()
		f := asker(server).Lookup(ctx, "db.example")
		at := <-calledOff
		for _, err := range []error{f.V4.Err, f.V6.Err} {
			if late := net.Error(nil); errors.As(err, &late) && late.Timeout() && at < firstTry/2 {
				t.Fatalf("called off after %v, and it went on: %v", at, err)
			}
		}
	}
}

// A server that says nothing keeps the next one from being asked for less than a whole try.
func TestDeadServerIsFirst(t *testing.T) {
	t.Parallel()
	dead := serve(t, func(dns.ResponseWriter, *dns.Msg) {})
	good := serve(t, zone(t, "db.example. 60 A 10.0.0.1"))
	began := time.Now()
	f := asker(dead, good).Lookup(t.Context(), "db.example")
	if f.V4.Err != nil || !slices.Equal(f.V4.Addrs, addrs("10.0.0.1")) {
		t.Errorf("%+v", f.V4)
	}
	if took := time.Since(began); took >= oneTry {
		t.Errorf("it took %v", took)
	}
}

// Each question has a socket and an ID of its own (RFC 5452).
func TestQuestionsDiffer(t *testing.T) {
	t.Parallel()
	type origin struct {
		from string
		id   uint16
	}
	seen := make(chan origin, 64)
	server := serve(t, func(w dns.ResponseWriter, m *dns.Msg) {
		seen <- origin{w.RemoteAddr().String(), m.Id}
		zone(t)(w, m)
	})
	for range 10 {
		asker(server).Lookup(t.Context(), "db.example")
	}
	from, ids := map[string]bool{}, map[uint16]bool{}
	for range 20 { // of both families
		one := <-seen
		from[one.from], ids[one.id] = true, true
	}
	if len(from) < 10 || len(ids) < 10 {
		t.Errorf("20 questions came from %d ports with %d IDs", len(from), len(ids))
	}
}

func TestSystemServers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string, at int64) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Unix(at, 0), time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	s := &System{File: file}
	if _, err := s.Servers(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v without a file", err)
	}
	for i, tt := range []struct {
		text, want, bad string
	}{
		{"# none\nsearch example\n", "", "names no server"},
		{"nameserver 192.0.2.1\nnameserver 2001:db8::53\n", "192.0.2.1:53 [2001:db8::53]:53", ""},
		{"nameserver fe80::1%lo\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n", "[fe80::1%lo]:53 192.0.2.2:53 192.0.2.3:53", ""},
	} {
		write(tt.text, int64(1_800_000_000+i))
		got, err := s.Servers()
		if tt.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tt.bad) {
				t.Errorf("error %v", err)
			}
			continue
		}
		var texts []string
		for _, a := range got {
			texts = append(texts, a.String())
		}
		if err != nil || strings.Join(texts, " ") != tt.want {
			t.Errorf("%v, %v, want %s", got, err, tt.want)
		}
	}
}

func TestWithoutOurselves(t *testing.T) {
	us := netip.MustParseAddrPort("127.0.0.1:53")
	other := netip.MustParseAddrPort("192.0.2.1:53")
	own := func(a netip.AddrPort) bool { return a == us }
	all := []netip.AddrPort{us, other}
	if got, err := Without(all, own); err != nil || !slices.Equal(got, []netip.AddrPort{other}) || all[0] != us {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Without(all[:1], own); !errors.Is(err, ErrOurselves) {
		t.Errorf("error %v", err)
	}
}
