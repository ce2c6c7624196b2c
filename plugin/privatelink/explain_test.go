package privatelink

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
	flowpolicy "github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy/targets"
)

// onlyTenant owns the one subscription of the random worlds.
type onlyTenant struct{}

func (onlyTenant) Tenants() []control.Tenant { return []control.Tenant{operatorTenant()} }

func (onlyTenant) SubscriptionOwner(sub string) (control.Tenant, bool) {
	return operatorTenant(), sub == "op"
}

func operatorTenant() control.Tenant {
	return control.Tenant{ID: "op", Operator: true, Subscriptions: []control.Subscription{{ID: "op"}}}
}

// pick returns one of a list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// The names of random worlds: of services, and those that clients ask for beside them.
var (
	worldNames = []link.Name{"a.database.windows.net", "b.database.windows.net", "*.azurewebsites.net", "kv.vault.azure.net",
		"db.example.com", "x.y.example.com", "*.apps.example.com", "acct.blob.core.windows.net"}
	askedNames = []string{"c.database.windows.net", "privatelink.database.windows.net", "shop.azurewebsites.net", "shop.privatelink.azurewebsites.net",
		"a.b.azurewebsites.net", "y.example.com", "example.com", "z.apps.example.com", "other.example.org", "w.zone.example", "zone.example",
		"one.zone.example", "_postern.zone.example", "_postern.apps.example.com", "_postern.azurewebsites.net", "a.privatelink.database.windows.net", "kv.privatelink.vaultcore.azure.net", "deep.one.zone.example", "_sip._tcp.zone.example"}
)

// randomWorld makes a state by changes of which many are refused.
func randomWorld(r *rand.Rand) *link.Snapshot {
	s := link.Empty()
	try := func(c link.Change) {
		if next, _, err := s.Apply(noon, c); err == nil {
			s = next
		}
	}
	for i, p := range []string{"10.1.0.0/16", "10.1.99.0/24", "10.2.0.0/16"} {
		try(link.PutNetwork{Network: link.Network{ID: link.ID(fmt.Sprintf("op/g/n%d", i)), Prefixes: prefixes(p), Egress: []string{"*"}, Sites: randomSites(r, i),
			Pools: prefixes(fmt.Sprintf("10.20%d.0.0/24", i), fmt.Sprintf("fd00:20%d::/64", i))}})
	}
	for i := range 4 {
		var names []link.Name
		for range r.IntN(3) {
			names = append(names, pick(r, worldNames...))
		}
		v := service(link.ID(fmt.Sprintf("op/g/s%d", i)), names...)
		v.Pin = pick(r, link.PinAddress, link.PinTLS)
		if len(names) == 0 {
			v.Pin = link.PinAddress
		}
		v.FallbackPublic = r.IntN(4) == 0
		v.Targets, v.Weights = nil, map[netip.AddrPort]int{}
		for j := range 1 + r.IntN(3) {
			v.Targets = append(v.Targets, link.Target{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, byte(i), byte(4 + j)}), 443)})
			v.Weights[v.Targets[j].Addr] = pick(r, 0, 1, 1, 3)
		}
		if r.IntN(3) == 0 {
			v.AutoApprove = nil
		}
		try(link.PutService{Service: v})
	}
	try(link.PutZone{Zone: link.PrivateZone{ID: "op/g/zone.example", Name: "zone.example", Links: randomLinks(r)}})
	try(link.PutZone{Zone: link.PrivateZone{ID: "op/g/privatelink.database.windows.net", Name: "privatelink.database.windows.net", Links: randomLinks(r)}})
	for _, n := range []string{"one", "*", "@"} {
		if r.IntN(2) == 0 {
			try(link.PutRecordSet{RecordSet: link.RecordSet{Zone: "op/g/zone.example", Type: "A", Name: n, TTL: 60, Data: []string{"192.168.7." + fmt.Sprint(r.IntN(200))}}})
		}
		if r.IntN(4) == 0 {
			try(link.PutRecordSet{RecordSet: link.RecordSet{Zone: "op/g/zone.example", Type: "TXT", Name: n, TTL: 60, Data: []string{`"x"`}}})
		}
	}
	for _, n := range []string{"al", "on", "_sip._tcp"} {
		to := strings.Replace(string(pick(r, worldNames...)), "*", "w", 1)
		if r.IntN(3) == 0 {
			to = pick(r, "al.zone.example", "on.zone.example", "one.zone.example", "none.zone.example", "other.example.org")
		}
		if r.IntN(4) > 0 {
			try(link.PutRecordSet{RecordSet: link.RecordSet{Zone: "op/g/zone.example", Type: "CNAME", Name: n, TTL: 60, Data: []string{to + "."}}})
		}
	}
	for i := range 8 {
		e := link.Endpoint{ID: link.ID(fmt.Sprintf("op/g/e%d", i)), Network: link.ID(fmt.Sprintf("op/g/n%d", r.IntN(3))), Service: link.ID(fmt.Sprintf("op/g/s%d", r.IntN(4)))}
		if r.IntN(3) == 0 {
			e.Allow = prefixes("10.1.99.0/24")
		}
		if r.IntN(4) == 0 {
			e.Address = netip.MustParseAddr(fmt.Sprintf("fd00:20%s::%d", e.Network.Last()[1:], 5+i))
		}
		if r.IntN(3) == 0 {
			e.Zones = &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "c", Zone: "op/g/privatelink.database.windows.net"}}}
		}
		try(link.PutEndpoint{Endpoint: e})
		now := s.Endpoint(e.ID)
		if now == nil {
			continue
		}
		id := now.Connection.LinkID
		switch r.IntN(6) {
		case 0:
			try(link.Decide{Endpoint: e.ID, LinkID: id, State: link.Rejected})
		case 1:
			try(link.Suspend{Endpoint: e.ID, LinkID: id})
		case 2:
			try(link.Disconnect{Endpoint: e.ID, LinkID: id})
		}
	}
	return s
}

// randomSites say where the lower addresses of a network's pool are, and some of its clients.
func randomSites(r *rand.Rand, network int) (sites link.Sites) {
	for i, p := range []string{"10.1.0.0/24", "10.20%d.0.0/30", "10.20%d.0.4/31", "10.20%d.0.6/31", "fd00:20%d::4/126", "fd00:20%d::8/125"} {
		if i > 0 {
			p = fmt.Sprintf(p, network)
		}
		if r.IntN(4) > 0 {
			sites = append(sites, link.SitePrefix{Site: pick(r, "paris", "lyon", "brest"), Prefix: netip.MustParsePrefix(p)})
		}
	}
	return sites
}

func randomLinks(r *rand.Rand) (links []link.ZoneLink) {
	for i := range 3 {
		if r.IntN(2) == 0 {
			links = append(links, link.ZoneLink{Name: fmt.Sprintf("l%d", i), Network: link.ID(fmt.Sprintf("op/g/n%d", i)), Redirect: r.IntN(3) == 0})
		}
	}
	return links
}

// randomRules make a policy of what random worlds have, one rule in three on trial; nil in a third of the worlds.
func randomRules(r *rand.Rand) *flowpolicy.Policy {
	p := &flowpolicy.Policy{}
	for i := range r.IntN(3) {
		set := flowpolicy.Set{Name: fmt.Sprintf("p%d", i), Default: pick(r, flowpolicy.DefaultAllow, flowpolicy.DefaultAllow, flowpolicy.DefaultObserve, flowpolicy.DefaultDeny)}
		for j := range r.IntN(4) {
			rule := flowpolicy.Rule{Name: fmt.Sprintf("r%d", j), Allow: r.IntN(2) == 0}
			rule.Observe = !rule.Allow && r.IntN(3) == 0
			switch r.IntN(5) {
			case 0:
				rule.Sources = prefixes(pick(r, "10.1.99.0/24", "10.2.0.0/16", "10.1.0.0/20"))
			case 1:
				rule.Names = []link.Name{pick(r, worldNames...)}
			case 2:
				rule.Services = []link.ID{link.ID(fmt.Sprintf("op/g/s%d", r.IntN(4)))}
			case 3:
				rule.Networks, rule.Times = []link.ID{link.ID(fmt.Sprintf("op/g/n%d", r.IntN(3)))}, []flowpolicy.Window{{From: 0, To: 12 * 60}, {From: 12 * 60, To: 13 * 60}}
			case 4:
				rule.Endpoints, rule.Names = []link.ID{link.ID(fmt.Sprintf("op/g/e%d", r.IntN(8)))}, []link.Name{pick(r, worldNames...)}
			}
			set.Rules = append(set.Rules, rule)
		}
		p.Sets = append(p.Sets, set)
	}
	if len(p.Sets) == 0 {
		return nil
	}
	return p
}

// randomTargets are the targets of a service as a node may have found them. It reports whether one answers that may have flows.
func randomTargets(r *rand.Rand, v *link.Service) (set *targets.Set, healthy bool) {
	set = targets.New(noon, v)
	for _, t := range v.Targets {
		switch r.IntN(4) {
		case 0: // taken for one that answers
		case 1:
			set.Probed(noon, t.Addr, v.Probe.Kind, true)
		case 2:
			set.Probed(noon, t.Addr, v.Probe.Kind, false)
		case 3:
			set.Probed(noon.Add(-time.Minute), t.Addr, v.Probe.Kind, false)
			set.Probed(noon.Add(-time.Duration(r.Int64N(int64(12*time.Second)))), t.Addr, v.Probe.Kind, true)
		}
		for range pick(r, 0, 0, 1, 3) {
			set.Unreached(noon, t.Addr)
		}
	}
	set.Look(noon, func(t targets.Status) { healthy = healthy || t.Weight > 0 && !t.Down })
	return set, healthy
}

// A24: in random worlds with random policies, what explain says is what DNS answers and what policy decides on a connection to
// the address that DNS gave.
func TestExplainAgrees(t *testing.T) {
	const worlds = 1000
	seen := map[string]int{}
	for seed := range uint64(worlds) {
		r := rand.New(rand.NewPCG(seed, 24))
		s := randomWorld(r)
		srv := newServer(t, s)
		srv.unproven, srv.down = map[link.ID]bool{}, map[link.ID]bool{}
		sets := map[link.ID]*targets.Set{}
		for v := range s.Services() {
			set, healthy := randomTargets(r, v)
			sets[v.ID], srv.unproven[v.ID], srv.down[v.ID] = set, r.IntN(5) == 0, !healthy
			srv.down[v.ID+"@paris"], srv.down[v.ID+"@lyon"] = r.IntN(3) == 0, r.IntN(3) == 0
		}
		by := randomRules(r)
		c := control.New(control.Config{
			Snapshot: func() *link.Snapshot { return s }, Tenants: onlyTenant{}, Zones: link.DefaultZones(),
			Published: srv.Published, Healthy: srv.Healthy, HealthyAt: srv.HealthyAt,
			Targets: func(service link.ID) (all []control.TargetState) {
				sets[service].Look(noon, func(t targets.Status) { all = append(all, control.TargetState(t)) })
				return all
			},
			Policy: func() *flowpolicy.Policy { return by }, Now: func() time.Time { return noon },
		})
		names := slices.Clone(askedNames)
		for _, n := range worldNames {
			if n[0] != '*' {
				names = append(names, string(n))
			}
		}
		for range 25 {
			agree(t, seed, c, srv, by, sets, pick(r, "10.1.0.9", "10.1.99.9", "10.2.0.9", "192.0.2.9"), pick(r, names...), seen)
		}
		asked := []string{"al.zone.example", "on.zone.example"}
		for e := range s.Endpoints() {
			asked = append(asked, strings.TrimSuffix(reverseName(e.Address.String()), "."))
		}
		for _, name := range asked {
			agree(t, seed, c, srv, by, sets, pick(r, "10.1.0.9", "10.2.0.9"), name, seen)
		}
		if t.Failed() {
			return
		}
	}
	for _, answer := range []string{control.AnswerEndpoint, control.AnswerZone, control.AnswerPass, control.AnswerNoData, control.AnswerDenied, control.AnswerFail,
		"endpoint by an alias", "pass by an alias", "a reverse name"} {
		if seen[answer] < 20 {
			t.Errorf("only %d answers were %q: the worlds are too poor", seen[answer], answer)
		}
	}
	for _, state := range []string{control.TargetUp, control.TargetUnknown, control.TargetStarting, control.TargetEjected, control.TargetDown, control.TargetDrained} {
		if seen[state] < 20 {
			t.Errorf("only %d targets were %s: the worlds are too poor", seen[state], state)
		}
	}
	if seen["by a rule"] < 20 {
		t.Errorf("%d flows are refused by a rule: the policies are too poor", seen["by a rule"])
	}
	if seen["allowed"] < 20 || seen["refused"] < 20 {
		t.Errorf("%d flows allowed, %d refused: the worlds are too poor", seen["allowed"], seen["refused"])
	}
}

func agree(t *testing.T, seed uint64, c *control.Control, srv *server, by *flowpolicy.Policy, sets map[link.ID]*targets.Set, client, name string, seen map[string]int) {
	t.Helper()
	caller := control.Caller{Name: "test", Operator: true, Grants: []control.Grant{{Subscription: "op", Role: control.Owner}}}
	asked := link.Name(name)
	x, err := c.Explain(t.Context(), caller, "op", netip.MustParseAddr(client), asked, 0)
	if err != nil {
		t.Fatal(err)
	}
	answer, addresses := srv.outcome(t, client, name)
	if answer == "ours" {
		answer = x.Answer
		if x.Answer != control.AnswerEndpoint && x.Answer != control.AnswerZone {
			answer = "addresses"
		}
	}
	got := slices.Sorted(slices.Values(x.Addresses))
	if x.Answer != answer || !slices.Equal(got, addresses) {
		t.Errorf("world %d, %s asks for %s: DNS: %s %v, explain: %s %v: %+v", seed, client, name, answer, addresses, x.Answer, got, x.Steps)
	}
	seen[x.Answer]++
	if slices.ContainsFunc(x.Steps, func(s control.Step) bool { return strings.HasPrefix(s.Result, "alias of ") }) {
		seen[x.Answer+" by an alias"]++
	}
	if slices.ContainsFunc(x.Steps, func(s control.Step) bool { return strings.HasPrefix(s.Rule, "reverse name of ") }) {
		seen["a reverse name"]++
	}
	if x.Answer != control.AnswerEndpoint {
		return
	}
	v := srv.snapshot.Service(x.Service)
	// As the data plane asks: before the first bytes, and where that waits for the name, with it.
	ask := flowpolicy.Request{
		Source: netip.AddrPortFrom(netip.MustParseAddr(client), 40000), Local: netip.AddrPortFrom(netip.MustParseAddr(x.Addresses[0]), v.Port), At: noon,
	}
	d := by.Decide(srv.snapshot, ask)
	if d.Unjudged {
		ask.Judged, ask.Name = true, asked
		d = by.Decide(srv.snapshot, ask)
	}
	if d.Refused != "" {
		seen["by a rule"]++
	}
	want, reason := d.Allow, d.Reason
	if d.Allow {
		if got := agreeOnTarget(t, seed, sets[v.ID], v, x.Targets, seen); !got || !srv.Healthy(v.ID) {
			want, reason = false, flowpolicy.NoTarget
		}
	}
	if x.Allowed != want || x.Reason != string(reason) {
		t.Errorf("world %d, %s connects to %s for %s: policy: %v %q, explain: %v %q", seed, client, x.Addresses[0], name, want, reason, x.Allowed, x.Reason)
	}
	if last := x.Steps[len(x.Steps)-1]; !d.Allow && d.Rule != last.Rule {
		t.Errorf("world %d: rule %q decided, explain says %q", seed, d.Rule, last.Rule)
	}
	seen[map[bool]string{true: "allowed", false: "refused"}[x.Allowed]]++
}

// agreeOnTarget has a flow take a place at a target, as the data plane does, and compares it with what explain says of the targets: it
// gets one that none is better than, and none where all are drained. It reports whether it got one.
func agreeOnTarget(t *testing.T, seed uint64, set *targets.Set, v *link.Service, said []control.ExplainedTarget, seen map[string]int) bool {
	t.Helper()
	order := []string{control.TargetUp, control.TargetEjected, control.TargetDown, control.TargetDrained, control.TargetForbidden}
	rank := func(state string) int { return max(0, slices.Index(order, state)) } // those that are starting or unknown are as good as any
	best := len(order)
	for _, one := range said {
		best = min(best, rank(one.State))
		seen[one.State]++
	}
	if len(said) != len(v.Targets) {
		t.Errorf("world %d: %d targets of %d are explained", seed, len(said), len(v.Targets))
		return false
	}
	place, _, err := set.Take(noon, v, targets.Flow{})
	if err != nil {
		if best != rank(control.TargetDrained) {
			t.Errorf("world %d: no place, %v, at %+v", seed, err, said)
		}
		return false
	}
	defer place.Release(noon, targets.Quiet)
	i := slices.IndexFunc(said, func(one control.ExplainedTarget) bool { return one.Target == place.Addr.String() })
	if i < 0 || !said[i].First || rank(said[i].State) != best || best == rank(control.TargetDrained) {
		t.Errorf("world %d: a place at %v of %+v", seed, place.Addr, said)
	}
	return true
}

// outcome asks for both families and says in the words of explain what came of it; "ours" is an answer with
// addresses, which are sorted.
func (s *server) outcome(t *testing.T, client, name string) (answer string, addresses []string) {
	t.Helper()
	answer = control.AnswerNoData
	for _, rrtype := range []string{"A", "AAAA"} {
		s.up.asked = nil
		m, _ := s.ask(t, client, question(name+" "+rrtype))
		switch {
		case len(s.up.asked) > 0:
			return control.AnswerPass, nil
		case m.Rcode == dns.RcodeServerFailure:
			return control.AnswerFail, nil
		case m.Rcode == dns.RcodeNameError:
			return control.AnswerDenied, nil
		}
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addresses = append(addresses, rr.A.String())
			case *dns.AAAA:
				addresses = append(addresses, rr.AAAA.String())
			}
		}
	}
	if len(addresses) > 0 {
		answer = "ours"
	}
	slices.Sort(addresses)
	return answer, addresses
}
