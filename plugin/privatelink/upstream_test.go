package privatelink

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/link"
)

// behind gives a server an upstream, which is asked by the handler for what is passed on too.
func (s *server) behind(h plugin.Handler) {
	s.Next = h
	s.Upstream = &Upstream{
		ask: h, snapshot: func() *link.Snapshot { return s.snapshot }, now: time.Now,
		log: slog.New(slog.DiscardHandler), gauge: s.stats.loops, server: "test",
	}
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
		srv.behind(plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			<-over
			return dns.RcodeServerFailure, nil
		}))
		r := question("www.example.org A").SetEdns0(1232, false)
		for range maxPending {
			go func() {
				r := r.Copy()
				w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: corp}}
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
