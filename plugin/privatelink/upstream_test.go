package privatelink

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/forward"
	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/internal/dnstest"
	"github.com/postern-link/postern/link"
)

// behind gives a server an upstream, which is asked by the handler for what is passed on too.
func (s *server) behind(h plugin.Handler) {
	s.Next = h
	s.Upstream = newUpstream("test", h, s.stats, func() *link.Snapshot { return s.snapshot }, slog.New(slog.DiscardHandler))
}

// A resolver that asks us again, for all names or for those below one suffix, is found: what would be passed
// on there fails and says why, the rest goes on, private names too, and all is well when it stops.
func TestUpstreamLoop(t *testing.T) {
	for _, tt := range []struct{ name, suffix, fails, goesOn, metric string }{
		{name: "all names", suffix: ".", fails: "www.example.org.", metric: "."},
		{name: "names of services", suffix: ".database.windows.net.", fails: "other.database.windows.net.", goesOn: "www.example.org.", metric: "database.windows.net."},
		{name: "a suffix of the suffix", suffix: ".net.", fails: "other.DATABASE.windows.net.", goesOn: "www.example.org.", metric: "database.windows.net."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newServer(t, world(t))
				var loops atomic.Bool
				loops.Store(true)
				srv.behind(plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
					if loops.Load() && strings.HasSuffix("."+strings.ToLower(r.Question[0].Name), tt.suffix) {
						r := r.Copy()
						r.Question[0].Name = strings.ToUpper(r.Question[0].Name) // as resolvers do
						return srv.ServeDNS(ctx, w, r)
					}
					return srv.up.ServeDNS(ctx, w, r)
				}))
				if srv.Ready() {
					t.Error("ready before it is known whether there is a loop")
				}
				synctest.Wait()
				time.Sleep(lookAgain)
				srv.ask(t, corp, question(tt.fails+" A"))
				synctest.Wait()
				if srv.Ready() {
					t.Error("ready with a loop")
				}
				failed := func(name string) bool {
					m, _ := srv.ask(t, corp, question(name+" A").SetEdns0(1232, false))
					return m.Rcode == dns.RcodeServerFailure && edeOf(m) == int(dns.ExtendedErrorCodeNoReachableAuthority)
				}
				if !failed(tt.fails) {
					t.Error("a name that loops doesn't fail")
				}
				if tt.goesOn != "" && failed(tt.goesOn) {
					t.Error("a name that doesn't loop fails")
				}
				if failed("contoso.database.windows.net.") {
					t.Error("a private name fails")
				}
				if got := testutil.ToFloat64(srv.stats.loops.WithLabelValues("test", tt.metric)); got != 1 {
					t.Errorf("the metric is %v", got)
				}
				loops.Store(false)
				time.Sleep(lookLooping)
				failed(tt.fails) // has it looked for again
				synctest.Wait()
				if failed(tt.fails) || !srv.Ready() {
					t.Error("after the loop has ended, names fail")
				}
				if n := testutil.CollectAndCount(srv.stats.loops); n != 0 {
					t.Errorf("%d loops are in the metric", n)
				}
			})
		})
	}
}

// Who asks for a name like that of a probe learns nothing and breaks nothing.
func TestUpstreamForgedProbe(t *testing.T) {
	srv := newServer(t, world(t))
	srv.behind(srv.up)
	for _, name := range []string{probeLabel + ".", probeLabel + "0123456789abcdef.database.windows.net.", "POSTERN-LOOP-."} {
		if m, _ := srv.ask(t, corp, question(name+" A")); m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %v", name, m)
		}
	}
	if srv.Upstream.loops.Load() != nil {
		t.Error("a loop was found")
	}
}

// D19: with servers that don't answer, as many queries wait as may, others fail at once, private names are
// answered, and readiness doesn't wait for them.
func TestUpstreamPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer(t, world(t))
		over := make(chan struct{})
		srv.behind(plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			select {
			case <-over:
			case <-ctx.Done(): // as forward does
			}
			return dns.RcodeServerFailure, nil
		}))
		r := question("www.example.org A").SetEdns0(1232, false)
		for i := range maxPending {
			go func() {
				r := r.Copy()
				w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: []string{corp, lab}[i%2]}}
				_, _ = srv.ServeDNS(t.Context(), request.NewScrubWriter(r, w), r)
			}()
		}
		synctest.Wait()
		m, _ := srv.ask(t, stranger, r.Copy())
		if m == nil || m.Rcode != dns.RcodeServerFailure || edeOf(m) != int(dns.ExtendedErrorCodeOther) {
			t.Errorf("one too many: %v", m)
		}
		m, _ = srv.ask(t, corp, question("contoso.database.windows.net A"))
		check(t, "private name", m.Answer[1:], "contoso."+sqlZone+" 10 IN A 10.200.0.5")
		if srv.Ready() {
			t.Error("ready at once")
		}
		time.Sleep(patience + time.Second)
		if !srv.Ready() {
			t.Error("not ready because the servers don't answer")
		}
		close(over)
		synctest.Wait()
		if n := srv.Upstream.pending.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

// looks has a server look for loops below the suffixes of what was passed on: whatever was looked for before is long ago.
func (s *server) looks(t *testing.T) {
	t.Helper()
	time.Sleep(lookAgain)
	s.ask(t, corp, question("www.example.com A"))
	synctest.Wait()
}

// No loop: servers that ask another server block of this process, which asks others; and names below the suffix of a
// service that a plugin behind this one has itself, for which others ask here rightly.
func TestUpstreamNoLoop(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, srv *server) plugin.Handler{
		"another server block": func(t *testing.T, srv *server) plugin.Handler {
			other := newServer(t, srv.snapshot)
			other.behind(other.up)
			return other
		},
		"a zone of this one": func(_ *testing.T, srv *server) plugin.Handler {
			return plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
				if !strings.HasSuffix(r.Question[0].Name, ".example.com.") {
					return srv.up.ServeDNS(ctx, w, r) // and that one would ask here for names of the zone
				}
				m := new(dns.Msg).SetReply(r)
				m.Answer = records(r.Question[0].Name + " 300 IN A 10.9.9.9")
				return 0, w.WriteMsg(m)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := newServer(t, world(t))
				srv.behind(next(t, srv))
				srv.looks(t)
				if m, _ := srv.ask(t, corp, question("www.example.com A")); m.Rcode != dns.RcodeSuccess || !srv.Ready() {
					t.Errorf("ready %v: %v", srv.Ready(), m)
				}
			})
		})
	}
}

// nextNamed is a handler as linkexit and cache are.
type nextNamed struct {
	plugin.Handler
	name string
	Next plugin.Handler
}

func (n *nextNamed) Name() string { return n.name }

// Probes meet what is behind linkexit and cache.
func TestUpstreamAsks(t *testing.T) {
	up := new(upstream)
	file := &nextNamed{name: "file", Next: up}
	for name, h := range map[string]plugin.Handler{
		"both":    &nextNamed{name: "linkexit", Next: &nextNamed{name: "cache", Next: file}},
		"cache":   &nextNamed{name: "cache", Next: file},
		"neither": file,
	} {
		if got := asks(h); got != plugin.Handler(file) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := asks(&nextNamed{name: "cache"}); got != nil {
		t.Errorf("nothing behind: %v", got)
	}
}

// A loop that is known isn't over because a probe was lost, or came to another node behind the same servers, but it is when
// others answer all of them.
func TestUpstreamLostProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer(t, world(t))
		var then atomic.Pointer[plugin.HandlerFunc]
		is := func(h plugin.HandlerFunc) { then.Store(&h) }
		loops := func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			return srv.ServeDNS(ctx, w, r.Copy())
		}
		is(loops)
		srv.behind(plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			return (*then.Load())(ctx, w, r)
		}))
		srv.looks(t)
		var n atomic.Int64
		for _, tt := range []struct {
			name string
			is   plugin.HandlerFunc
			over bool
		}{
			{name: "nobody answers", is: func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
				return dns.RcodeServerFailure, nil
			}},
			{name: "others fail", is: func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
				return 0, w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
			}},
			{name: "a panic", is: func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { panic("hostile") }},
			{name: "another node at first", is: func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
				if n.Add(1)%attempts != 0 {
					return srv.up.ServeDNS(ctx, w, r)
				}
				return loops(ctx, w, r)
			}},
			{name: "others answer", over: true, is: srv.up.ServeDNS},
		} {
			is(tt.is)
			n.Store(0)
			srv.Upstream.probeAll()
			if over := srv.Upstream.loops.Load() == nil; over != tt.over {
				t.Errorf("%s: over %v", tt.name, over)
			}
		}
	})
}

// A panic on a hostile answer to a probe doesn't end the process.
func TestUpstreamProbePanic(t *testing.T) {
	srv := newServer(t, world(t))
	srv.behind(plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { panic("hostile") }))
	if got := srv.Upstream.probe(""); got != silent {
		t.Errorf("became %v", got)
	}
}

// What an instance knew isn't in the metric after it has ended.
func TestUpstreamEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer(t, world(t))
		srv.behind(plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			return srv.ServeDNS(ctx, w, r.Copy())
		}))
		srv.looks(t)
		if n := testutil.CollectAndCount(srv.stats.loops); n == 0 {
			t.Error("no loop is in the metric")
		}
		srv.Upstream.end()
		srv.looks(t)
		if n := testutil.CollectAndCount(srv.stats.loops); n != 0 {
			t.Errorf("%d loops are in the metric", n)
		}
	})
}

// D19: the clients of one network can't keep those of another from being answered; where all are of one, they have all places.
func TestUpstreamShare(t *testing.T) {
	stats := newCounters(nil)
	u := newUpstream("test", nil, stats, func() *link.Snapshot { return nil }, slog.New(slog.DiscardHandler))
	u.next.Store(1 << 62) // nothing is looked for
	for range maxShare {
		if u.enter("x.tarpit.example.", "lab") != nil {
			t.Fatal("the share of a network is too small")
		}
	}
	if u.enter("x.tarpit.example.", "lab") != tooMany {
		t.Error("one network has more than its share")
	}
	if u.enter("www.example.org.", "corp") != nil {
		t.Error("another network has none")
	}
	u.leave("lab")
	if u.enter("x.tarpit.example.", "lab") != nil {
		t.Error("what has ended still waits")
	}
	u.one = true
	if u.enter("x.tarpit.example.", "lab") != nil {
		t.Error("the only network has a share")
	}
	if waits, rejects := testutil.ToFloat64(stats.waits), testutil.ToFloat64(stats.rejects); waits != maxShare+2 || rejects != 1 {
		t.Errorf("the metrics have %v that wait and %v turned away, want %d and 1", waits, rejects, maxShare+2)
	}
	for range maxShare + 1 {
		u.leave("lab")
	}
	u.leave("corp")
	if waits := testutil.ToFloat64(stats.waits); waits != 0 {
		t.Errorf("%v wait after all have been answered", waits)
	}
}

// D19: what is remembered of the servers of others is answered to a network that has all of its places; of the rest nobody is asked, it
// fails with the reason, and that isn't remembered.
func TestUpstreamShareAndCache(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	addr := dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		asked[r.Question[0].Name]++
		mu.Unlock()
		m := new(dns.Msg).SetReply(r)
		m.Answer = dnstest.Records(t, r.Question[0].Name+" 300 IN A 203.0.113.1")
		_ = w.WriteMsg(m)
	})
	f, c := forward.New(), cache.New()
	p := proxy.NewProxy("forward", addr, "dns")
	f.SetProxy(p)
	t.Cleanup(p.Stop)
	c.Next = f
	srv := newServer(t, world(t))
	srv.behind(c)
	srv.Upstream.next.Store(1 << 62) // nothing is looked for
	rcode := func(client, name string) (int, int) {
		m, code := srv.ask(t, client, question(name+" A").SetEdns0(1232, false))
		if m == nil {
			return code, -1
		}
		return m.Rcode, edeOf(m)
	}
	full := map[link.ID]int{"corp": maxShare}
	for _, tt := range []struct {
		what, client, name string
		full               map[link.ID]int
		rcode, ede, asked  int
	}{
		{"there is room", corp, "known.example.", nil, dns.RcodeSuccess, -1, 1},
		{"no room, remembered", corp, "known.example.", full, dns.RcodeSuccess, -1, 1},
		{"no room, not remembered", corp, "new.example.", full, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeOther), 0},
		{"no room for another network's clients", lab, "new.example.", full, dns.RcodeSuccess, -1, 1},
		{"no room, remembered by now", corp, "new.example.", full, dns.RcodeSuccess, -1, 1},
		{"no room, not remembered", corp, "newer.example.", full, dns.RcodeServerFailure, int(dns.ExtendedErrorCodeOther), 0},
		{"there is room again", corp, "newer.example.", nil, dns.RcodeSuccess, -1, 1},
	} {
		srv.Upstream.sharing.Lock()
		srv.Upstream.waiting, srv.Upstream.passed = maps.Clone(tt.full), map[string]struct{}{}
		if srv.Upstream.waiting == nil {
			srv.Upstream.waiting = map[link.ID]int{}
		}
		srv.Upstream.sharing.Unlock()
		code, ede := rcode(tt.client, tt.name)
		mu.Lock()
		n := asked[tt.name]
		mu.Unlock()
		if code != tt.rcode || ede != tt.ede || n != tt.asked {
			t.Errorf("%s: %s has %s and error %d, its server was asked %d times", tt.what, tt.name, dns.RcodeToString[code], ede, n)
		}
	}
	if n := srv.Upstream.pending.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// D19: at the bound REFUSED with an error, which forward gives at its max_concurrent, is the same failure with the reason;
// REFUSED that a plugin means stays.
func TestUpstreamShareAndRefused(t *testing.T) {
	srv := newServer(t, world(t))
	var err error
	srv.behind(plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return dns.RcodeRefused, err }))
	srv.Upstream.next.Store(1 << 62) // nothing is looked for
	limit := errors.New("too many at once")
	for _, tt := range []struct {
		name string
		err  error
		ede  bool
	}{
		{"the limit of forward", limit, true},
		{"meant", nil, false},
	} {
		srv.Upstream.sharing.Lock()
		srv.Upstream.waiting, srv.Upstream.passed = map[link.ID]int{"corp": maxShare}, map[string]struct{}{}
		srv.Upstream.sharing.Unlock()
		err = tt.err
		m, code := srv.ask(t, corp, question("new.example. A").SetEdns0(1232, false))
		if tt.ede != (m != nil && m.Rcode == dns.RcodeServerFailure && edeOf(m) == int(dns.ExtendedErrorCodeOther)) || !tt.ede && code != dns.RcodeRefused {
			t.Errorf("%s: %d, %v", tt.name, code, m)
		}
	}
}

// Probes tell the servers of others only of suffixes that they were asked for, among them names of services themselves, below
// which others may send everything here.
func TestUpstreamSuffixes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newServer(t, world(t))
		srv.behind(srv.up)
		asked := func() (probes []string) {
			time.Sleep(lookAgain)
			srv.up.mu.Lock()
			srv.up.asked = nil
			srv.up.mu.Unlock()
			srv.Ready()
			synctest.Wait()
			for _, q := range srv.up.asked {
				if _, suffix, _ := strings.Cut(q, "."); strings.HasPrefix(q, probeLabel) && strings.Count(suffix, ".") > 1 {
					probes = append(probes, suffix)
				}
			}
			slices.Sort(probes)
			return probes
		}
		if got := asked(); len(got) > 0 {
			t.Errorf("nothing was passed on: %q", got)
		}
		srv.ask(t, stranger, question("www.example.org A"))
		if got := asked(); len(got) > 0 {
			t.Errorf("nothing was passed on below a suffix: %q", got)
		}
		srv.ask(t, stranger, question("a.b.Contoso.database.windows.net A"))
		if got, want := asked(), []string{"contoso.database.windows.net. A", "database.windows.net. A"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := asked(); len(got) > 0 {
			t.Errorf("nothing was passed on since: %q", got)
		}
	})
}
