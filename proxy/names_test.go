package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/resolve"
)

// Each address of a name is a target. One that it leads to no more gets no flow, and those that it has go on; they end with
// the name.
func TestNamesAreTargets(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	z.set("db.example", "127.0.0.2", "127.0.0.3")
	w := newNamed(t, z, port)
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published")
	}
	if got := []string{w.newFlow(), w.newFlow()}; !slices.Contains(got, "127.0.0.2") || !slices.Contains(got, "127.0.0.3") {
		t.Fatalf("flows end at %v", got)
	}
	c := dial(t, w.first())
	at, err := where(c)
	if err != nil {
		t.Fatal(err)
	}
	z.set("db.example", "127.0.0.4")
	w.again()
	w.leads("127.0.0.4")
	for range 4 {
		if got := w.newFlow(); got != "127.0.0.4" {
			t.Fatalf("a flow ends at %s", got)
		}
	}
	w.apply(service("other", 7002, netip.AddrPort{}, byName(port, "db.example"))) // a review finds nothing against the flow
	if again, err := where(c); again != at || err != nil {
		t.Fatalf("the flow of before: %s, %v, was at %s", again, err, at)
	}
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "other.example")))
	if _, err := where(c); !isResetError(err) {
		t.Errorf("the flow outlives its name: %v", err)
	}
	eventually(t, "the service isn't healthy by a name that leads nowhere", func() bool { return !w.proxy.Healthy("svc") })
	eventually(t, "metrics of what is gone are gone", func() bool {
		return w.metric(t, "postern_proxy_name_addresses", "svc", fmt.Sprintf("db.example:%d", port)) == -1 &&
			w.metric(t, "postern_proxy_name_addresses", "svc", fmt.Sprintf("other.example:%d", port)) == 0 &&
			w.metric(t, "postern_proxy_target_up", "svc", fmt.Sprintf("127.0.0.4:%d", port)) == -1
	})
}

// A name that was never found makes its service unpublished; one that isn't found any more leads where it led.
func TestNamesNotFound(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2")
	z.fail(true)
	w := newNamed(t, z, port)
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("published")
	}
	w.noTarget(t)
	z.fail(false)
	z.set("db.example", "127.0.0.2")
	w.again()
	w.leads("127.0.0.2")
	eventually(t, "the service is published", func() bool { return w.proxy.Published("svc") })
	for _, fails := range []bool{true, false} { // it can't say, or there is nothing
		z.fail(fails)
		z.set("db.example")
		w.again()
		eventually(t, "the lookup has failed", func() bool {
			n := w.proxy.Names("svc")
			return n[0].Err != nil && (n[0].Err == resolve.ErrNone) == !fails
		})
		if at := w.newFlow(); at != "127.0.0.2" {
			t.Errorf("a flow ends at %s", at)
		}
	}
	if w.metric(t, "postern_proxy_name_stale_seconds", "svc", fmt.Sprintf("db.example:%d", port)) <= 0 || w.metric(t, "postern_proxy_name_lookups_total", "failed") < 2 || w.metric(t, "postern_proxy_name_lookups_total", "empty") < 1 {
		t.Error("the metrics say nothing of it")
	}
	if len(w.log.lines("isn't found", "stay")) != 1 {
		t.Error("it isn't logged once")
	}
}

// E23, A21, X: whoever holds a name, it leads nowhere where the service may not send, not even the operator's.
func TestNamesRebind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		leads, rule string
		edit        func(*link.Service)
	}{
		{"127.0.0.1", "loopback", anywhere},
		{"::1", "loopback", anywhere},
		{"::ffff:127.0.0.1", "loopback", anywhere},
		{"64:ff9b::7f00:1", "loopback", anywhere},
		{"2002:7f00:1::1", "loopback", anywhere},
		{"169.254.169.254", "metadata", anywhere},
		{"64:ff9b::a9fe:a9fe", "metadata", anywhere},
		{"fe80::1", "link-local", anywhere},
		{"0.0.0.0", "this host", anywhere},
		{"224.0.0.1", "multicast", anywhere},
		{"127.77.200.200", link.TargetIsPool, nil},
		{"64:ff9b::7f4d:c8c8", link.TargetIsPool, anywhere},
		{"192.0.2.1", link.TargetIsOutside, nil},
	} {
		t.Run(tt.leads, func(t *testing.T) {
			t.Parallel()
			z, was := newZone(t), newTarget(t)
			z.set("db.example", tt.leads)
			edit := []func(*link.Service){}
			if tt.edit != nil {
				edit = append(edit, tt.edit)
			}
			w := newNamed(t, z, was.addr().Port(), edit...)
			if w.proxy.Published("svc") {
				t.Error("published")
			}
			n := w.proxy.Names("svc")
			if len(n) != 1 || len(n[0].Addrs) > 0 || len(n[0].Refused) != 1 || !strings.Contains(n[0].Refused[netip.MustParseAddr(tt.leads).Unmap()], tt.rule) {
				t.Errorf("%+v", n)
			}
			w.noTarget(t)
			w.again()
			w.apply(endpoint("e", "svc", w.host(), "127.0.0.0/9"))
			if lines := w.log.lines("leads where the service may not send"); len(lines) != 1 || !strings.Contains(lines[0], tt.rule) {
				t.Errorf("log %q", lines)
			}
			if w.metric(t, "postern_proxy_name_refused_total", "rule") != 1 || w.metric(t, "postern_proxy_name_addresses_refused", "svc", fmt.Sprintf("db.example:%d", was.addr().Port())) != 1 {
				t.Error("not counted once")
			}
			select {
			case c := <-was.conns:
				t.Errorf("something has connected from %v", c.RemoteAddr())
			default:
			}
		})
	}
}

// What a name leads to is judged on each snapshot, and flows with it; and where it leads to another tenant's backend, on each
// dial.
func TestNamesAreJudgedAgain(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2")
	z.set("db.example", "127.0.0.2")
	w := newNamed(t, z, port)
	c := dial(t, w.first())
	if _, err := where(c); err != nil {
		t.Fatal(err)
	}
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "db.example"), anywhere))
	if _, err := where(c); !isResetError(err) {
		t.Errorf("the flow goes on where the service may not send: %v", err)
	}
	if n := w.proxy.Names("svc"); len(n[0].Addrs) > 0 || w.proxy.Healthy("svc") {
		t.Errorf("%+v", n)
	}
	reach := func(s *link.Service) { s.Tenant, s.Reach = "b", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "db.example"), anywhere, reach))
	w.leads("127.0.0.2")
	guard := w.proxy.guardDial(w.now.Load().Service("svc"))
	to := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port)
	if err := guard(to); err != nil {
		t.Fatal(err)
	}
	w.apply(service("theirs", 7002, to, func(s *link.Service) { s.Tenant = "c" }))
	if err := guard(to); err == nil || !strings.Contains(err.Error(), link.TargetIsAnothers) {
		t.Errorf("error %v", err)
	}
}

// A node doesn't ask itself: it would be told the addresses of its endpoints.
func TestResolverIsThisNode(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	w := newWorld(t, Settings{})
	for _, own := range []Settings{{Own: []netip.AddrPort{z.addr}}, {OwnUDP: []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), z.addr.Port())}}} {
		own.Resolvers = []netip.AddrPort{z.addr}
		if _, err := w.proxy.Prepare(w.now.Load(), own); err == nil || !strings.Contains(err.Error(), "resolver "+z.addr.String()) {
			t.Errorf("error %v", err)
		}
	}
	own := Settings{Own: []netip.AddrPort{z.addr}}.withDefaults(w.proxy.memory)
	w.proxy.settings.Store(&own)
	w.proxy.names.system.File = resolvConf(t, "nameserver 127.0.0.1\n")
	if servers, err := w.proxy.names.servers(); err != nil || len(servers) != 1 {
		t.Errorf("%v, %v", servers, err)
	}
	own.Own = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")}
	if _, err := w.proxy.names.servers(); err == nil || !strings.Contains(err.Error(), "this node itself") {
		t.Errorf("error %v", err)
	}
}

// Until the first lookup is over, a service that was published before the start counts as healthy: no name of it passes to
// public addresses meanwhile.
func TestNamesAfterARestart(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	z.mu.Lock() // it doesn't answer
	w := newWorld(t, Settings{})
	w.proxy.Inherit("svc")
	next, err := w.proxy.Prepare(w.now.Load(), Settings{Resolvers: []netip.AddrPort{z.addr}})
	if err != nil {
		t.Fatal(err)
	}
	next.Commit()
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(1, "db.example")), endpoint("e", "svc", nextAddr(t)))
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published, or not healthy")
	}
	z.mu.Unlock()
	if err := w.proxy.Probed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("not published, or healthy with a name that isn't found")
	}
}

// A service of UDP is published once a name of it leads somewhere.
func TestNamesOfUDP(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	w := newNamed(t, z, 7001, func(s *link.Service) { s.Protocol = link.UDP })
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("published")
	}
	z.set("db.example", "127.0.0.2")
	w.again()
	w.leads("127.0.0.2")
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published")
	}
}

// The weight of a name is that of its addresses: with 0 it is drained, and publishes nothing.
func TestNameIsDrained(t *testing.T) {
	t.Parallel()
	z, port := newZone(t), tellers(t, "127.0.0.2", "127.0.0.3")
	z.set("db.example", "127.0.0.2", "127.0.0.3")
	drained := func(s *link.Service) { s.NameWeights = map[link.NamePort]int{s.TargetNames[0]: 0} }
	w := newNamed(t, z, port, drained)
	if w.proxy.Published("svc") || w.proxy.Healthy("svc") {
		t.Error("published")
	}
	w.apply(service("svc", 7001, netip.AddrPort{}, byName(port, "db.example"), func(s *link.Service) {
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port) // written down, to drain one of them
		s.Targets, s.Weights = []link.Target{{Addr: at}}, map[netip.AddrPort]int{at: 0}
	}))
	eventually(t, "the service is published", func() bool { return w.proxy.Published("svc") })
	for range 4 {
		if at := w.newFlow(); at != "127.0.0.3" {
			t.Fatalf("a flow ends at %s", at)
		}
	}
}

// More addresses than a service has by names are left out, and told.
func TestTooManyAddresses(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	var list []link.Name
	for i := range 6 {
		name := link.Name(fmt.Sprintf("n%d.example", i))
		list = append(list, name)
		var all []string
		for j := range resolve.MaxAddrs {
			all = append(all, fmt.Sprintf("127.1.%d.%d", i, j))
		}
		z.set(string(name), all...)
	}
	w := newWorld(t, Settings{Resolvers: []netip.AddrPort{z.addr}}, service("svc", 7001, netip.AddrPort{}, byName(1, list...)), endpoint("e", "svc", nextAddr(t)))
	if err := w.proxy.Probed(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, one := range w.proxy.Names("svc") {
		n += len(one.Addrs)
	}
	if n != maxFound || w.metric(t, "postern_proxy_name_refused_total", "number") != 6*resolve.MaxAddrs-maxFound {
		t.Errorf("%d targets", n)
	}
}
