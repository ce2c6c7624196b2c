package proxy

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// edited returns the change of the service of a world.
func edited(w *world, edit func(*link.Service)) []link.Change {
	s := *w.now.Load().Service("svc")
	edit(&s)
	return []link.Change{link.PutService{Service: s}}
}

// network returns the change of the network of a world.
func network(w *world, edit func(*link.Network)) []link.Change {
	n := *w.now.Load().Network("corp")
	edit(&n)
	return []link.Change{link.PutNetwork{Network: n}}
}

// X32, A18, A19: the ways to cut that revocations hasn't, since they begin with another service.
func TestRevokeKinds(t *testing.T) {
	of := func(s *link.Service) {
		s.Tenant, s.Reach = "b", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	for name, tt := range map[string]struct {
		edit   func(*link.Service)
		change func(*world) []link.Change
	}{
		"the target's right is lost": {of, func(w *world) []link.Change {
			return edited(w, func(s *link.Service) { s.Reach = nil })
		}},
		"egress narrowed": {nil, func(w *world) []link.Change {
			return network(w, func(n *link.Network) { n.Egress = []string{"tenant/nobody"} })
		}},
		"network gone": {nil, func(*world) []link.Change {
			return []link.Change{link.DeleteEndpoint{ID: "e"}, link.DeleteNetwork{ID: "corp"}}
		}},
		"the client is no longer of the network": {nil, func(w *world) []link.Change {
			return network(w, func(n *link.Network) { n.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
		}},
		"another port": {nil, func(w *world) []link.Change {
			return edited(w, func(s *link.Service) { s.Port = 7002 })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var edits []func(*link.Service)
			if tt.edit != nil {
				edits = append(edits, tt.edit)
			}
			w, client, far := pair(t, Settings{}, edits...)
			checkCut(t, w, tt.change(w), "flow ended", client, far)
		})
	}
}

// A19: a flow that was judged by a name goes when the name does, and stays while it is there.
func TestRevokeName(t *testing.T) {
	g := newTarget(t)
	w := newWorld(t, Settings{}, service("svc", 7001, g.addr(), pinned), endpoint("e", "svc", nextAddr(t)))
	client := dial(t, w.first())
	client.Write(helloFor(t, "allowed.example"))
	far, _ := g.next()
	w.apply(edited(w, func(s *link.Service) { s.Names = append(s.Names, link.ResourceName{Public: "more.example"}) })...)
	if w.proxy.Flows() != 1 {
		t.Error("another name more ended it")
	}
	checkCut(t, w, edited(w, func(s *link.Service) { s.Names = s.Names[1:] }), "flow ended", client, far)
}

// A limit that is lowered ends nothing: it is for those that come.
func TestLimitLowered(t *testing.T) {
	w, client, far := pair(t, Settings{})
	w.apply(edited(w, func(s *link.Service) { s.MaxConnections, s.MaxPerConsumer = 1, 1 })...)
	next, err := w.proxy.Prepare(w.now.Load(), Settings{MaxFlows: 1, MaxPerSource: 1})
	if err != nil {
		t.Fatal(err)
	}
	next.Commit()
	if err := exchange(nil, cutFlow{client, far}); err != nil {
		t.Error(err)
	}
}

// A policy that is reloaded is followed without a new snapshot: what it allows goes on, what it denies ends.
func TestReview(t *testing.T) {
	w, client, far := pair(t, Settings{})
	says := func(allow bool) *policy.Policy {
		return &policy.Policy{Sets: []policy.Set{{Name: "p", Rules: []policy.Rule{{Name: "all", Allow: allow}}}}}
	}
	w.rules.Store(says(true))
	w.proxy.Review()
	if err := exchange(nil, cutFlow{client, far}); err != nil {
		t.Fatal(err)
	}
	w.rules.Store(says(false))
	w.proxy.Review()
	if !isReset(client) || !isReset(far) {
		t.Error("a side saw no reset")
	}
	eventually(t, "the line of the flow", func() bool { return len(w.log.lines("flow ended", "reason=revoked")) == 1 })
}

// blocks is an expression that doesn't answer for the service slow until it is let go.
type blocks struct{ asked, release chan struct{} }

func (b *blocks) Holds(f policy.Facts) (bool, error) {
	if f.Service.ID == "slow" {
		select {
		case b.asked <- struct{}{}:
		default:
		}
		<-b.release
	}
	return true, nil
}

func (*blocks) Uses() policy.Uses { return 0 }
func (*blocks) String() string    { return "blocks" }

// X32: rules that take their time about one flow delay no revocation of another.
func TestSlowRulesDelayNoCut(t *testing.T) {
	g := newTarget(t)
	w, client, far := pair(t, Settings{})
	w.apply(service("slow", 7002, g.addr()), endpoint("s", "slow", "127.77.0.9"))
	slow := dial(t, "127.77.0.9:7002")
	slow.Write([]byte{'!'})
	slowFar, _ := g.next()
	b := &blocks{make(chan struct{}, 1), make(chan struct{})}
	w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "p", Rules: []policy.Rule{
		{Name: "all", Allow: true, Conditions: policy.Conditions{When: []policy.Expression{b}}}}}}})
	w.proxy.Review()
	<-b.asked
	w.swap(revocations["reject"](w)...)
	done := make(chan struct{})
	go func() { w.proxy.Update(w.now.Load()); close(done) }()
	if !isReset(client) || !isReset(far) {
		t.Error("a side saw no reset")
	}
	close(b.release)
	<-done
	if err := exchange(nil, cutFlow{slow, slowFar}); err != nil {
		t.Error(err)
	}
}

// A21: a target that slipped into the state is refused at the dial with the rule in the line, and no probe
// touches it either.
func TestForbiddenTarget(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*link.Service)
		own  bool // the target is a listener of the node's
		rule string
	}{
		"loopback of a tenant":                    {func(s *link.Service) { s.Tenant = "b" }, false, "loopback"},
		"a listener of the node, of the operator": {func(*link.Service) {}, true, link.TargetIsListening},
		"a listener of the node, granted": {func(s *link.Service) {
			s.Tenant, s.Reach = "b", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}, true, link.TargetIsListening},
	} {
		t.Run(name, func(t *testing.T) {
			touched := make(chan struct{}, 8)
			g := newTarget(t)
			go func() {
				for c := range g.conns {
					c.Close()
					touched <- struct{}{}
				}
			}()
			settings := Settings{}
			if tt.own {
				settings.Own = []netip.AddrPort{g.addr()}
			}
			w := newWorld(t, settings, service("svc", 7001, g.addr(), tt.edit), endpoint("e", "svc", nextAddr(t)))
			checkNoTarget(t, w, tt.rule)
			w.proxy.Close()
			if len(touched) > 0 || w.proxy.Published("svc") {
				t.Error("the target was touched")
			}
		})
	}
}

// checkNoTarget connects, and checks that the flow is refused by a rule about its target.
func checkNoTarget(t *testing.T, w *world, rule string) {
	t.Helper()
	if c, err := net.DialTimeout("tcp", w.first(), patience); err == nil {
		io.Copy(io.Discard, c)
		c.Close()
	}
	eventually(t, "it is refused", func() bool { return len(w.log.lines("flow refused", "reason=no_target")) == 1 })
	if line := w.log.lines("flow refused")[0]; !strings.Contains(line, "detail=") || !strings.Contains(line, rule) {
		t.Errorf("want %q: %s", rule, line)
	}
	if w.dials(t) != 0 {
		t.Error("it was dialled")
	}
}

// A21: the address that the kernel is about to connect to is asked about on the newest snapshot.
func TestGuardOfTheDial(t *testing.T) {
	at := echo(t)
	w := newWorld(t, Settings{}, service("svc", 7001, at), endpoint("e", "svc", nextAddr(t)))
	for name, tt := range map[string]struct {
		service link.Service
		target  string
		rule    string
	}{
		"allowed":                  {link.Service{}, at.String(), ""},
		"an endpoint":              {link.Service{}, w.first(), link.TargetIsEndpoint},
		"a pool":                   {link.Service{}, "127.77.250.250:1", link.TargetIsPool},
		"loopback of a tenant":     {link.Service{Tenant: "b"}, at.String(), "loopback"},
		"mapped":                   {link.Service{Tenant: "b"}, "[::ffff:127.0.0.1]:1", "loopback"},
		"NAT64":                    {link.Service{Tenant: "b"}, "[64:ff9b::7f00:1]:1", "loopback"},
		"metadata of the operator": {link.Service{}, "169.254.169.254:80", "metadata"},
	} {
		to := netip.MustParseAddrPort(tt.target)
		err := w.proxy.guardDial(&tt.service)(to)
		if (err == nil) != (tt.rule == "") || err != nil && !strings.Contains(err.Error(), tt.rule) {
			t.Errorf("%s: error %v", name, err)
		}
		if tt.rule == "" {
			continue
		}
		d := dialling{engine: w.proxy.engine, guard: w.proxy.guardDial(&tt.service)}
		conn, err := d.target(t.Context(), &tt.service, to, patience)
		if conn != nil || err == nil || !strings.Contains(err.Error(), tt.rule) || blames(err) {
			t.Errorf("%s: dialled with error %v", name, err)
		}
	}
}
