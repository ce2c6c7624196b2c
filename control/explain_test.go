package control

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// says is an expression whose answer is told, and what it uses.
type says struct {
	holds bool
	err   error
	uses  policy.Uses
}

func (e says) Holds(policy.Facts) (bool, error) { return e.holds, e.err }
func (e says) Uses() policy.Uses                { return e.uses }
func (e says) String() string                   { return "says" }

// TestExplainDrained: that targets are drained is for the provider; a consumer learns that none answers.
func TestExplainDrained(t *testing.T) {
	w := connected(t, func(c *Config) {
		c.Targets = func(link.ID) []TargetState {
			return []TargetState{{Addr: netip.MustParseAddrPort("10.9.0.1:5432"), Up: true}}
		}
	})
	w.ok(w.EditService(t.Context(), op(Owner, subC), svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
		v := *old
		v.Names = []link.ResourceName{{Public: "db.contoso.example"}}
		return &v, nil
	}))
	w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
	for name, tt := range map[string]struct {
		caller Caller
		want   string
	}{
		"consumer": {as(Owner, subF), "none answers"},
		"operator": {as(Owner, subF, subOp), "all are drained"},
	} {
		x, err := w.Explain(t.Context(), tt.caller, subF, netip.MustParseAddr("10.1.0.9"), "db.contoso.example", 0)
		if err != nil {
			t.Fatal(err)
		}
		if last := x.Steps[len(x.Steps)-1]; last.What != "target" || last.Result != tt.want || x.Allowed || x.Reason != string(policy.NoTarget) {
			t.Errorf("%s: allowed %v, %+v", name, x.Allowed, x.Steps)
		}
	}
}

// TestExplainSites: explain says at which site each target is, which come first for the endpoint that the client is given, and which a rule keeps
// from all.
func TestExplainSites(t *testing.T) {
	const near, beside, far, own, full = "10.9.0.1:5432", "10.9.0.2:5432", "10.9.1.1:5432", "10.9.0.3:5432", "10.9.0.4:5432"
	state := func(at string, t TargetState) TargetState {
		t.Addr, t.Weight, t.Share = netip.MustParseAddrPort(at), 1, wholeShare
		return t
	}
	up := TargetState{Up: true}
	for name, tt := range map[string]struct {
		states []TargetState
		want   string
	}{
		"its own site first":   {[]TargetState{state(far, up), state(near, up), state(beside, TargetState{})}, near + " up paris first, " + beside + " unknown paris first, " + far + " up lyon"},
		"none is of use there": {[]TargetState{state(near, TargetState{Down: true}), state(far, up)}, far + " up lyon first, " + near + " down paris"},
		"all are down":         {[]TargetState{state(far, TargetState{Down: true}), state(near, TargetState{Down: true})}, near + " down paris first, " + far + " down lyon"},
		"forbidden":            {[]TargetState{state(own, up), state(far, up)}, far + " up lyon first, " + own + " forbidden paris " + link.TargetIsListening},
		"full":                 {[]TargetState{state(full, TargetState{Up: true, Flows: 9}), state(far, up)}, far + " up lyon first, " + full + " up paris"},
	} {
		t.Run(name, func(t *testing.T) {
			var ground link.Ground
			w := connected(t, func(c *Config) {
				c.Targets = func(link.ID) []TargetState { return tt.states }
				c.Ground = func() link.Ground { return ground }
			})
			w.ok(w.EditService(t.Context(), op(Owner, subC), svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
				v := *old
				v.Names, v.Targets, v.MaxPerTarget = []link.ResourceName{{Public: "db.contoso.example"}}, nil, 9
				for _, s := range tt.states {
					v.Targets = append(v.Targets, link.Target{Addr: s.Addr})
				}
				v.Sites = link.Sites{{Site: "paris", Prefix: netip.MustParsePrefix("10.9.0.0/24")}, {Site: "lyon", Prefix: netip.MustParsePrefix("10.9.1.0/24")}}
				return &v, nil
			}))
			w.ok(w.EditNetwork(t.Context(), op(Owner, subF), netF, func(_ *link.Snapshot, old *link.Network) (*link.Network, error) {
				n := *old
				n.Sites = link.Sites{{Site: "paris", Prefix: old.Prefixes[0]}}
				return &n, nil
			}))
			w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
			ground.Listeners = []netip.AddrPort{netip.MustParseAddrPort(own)}
			x, err := w.Explain(t.Context(), as(Owner, subF, subOp), subF, netip.MustParseAddr("10.1.0.9"), "db.contoso.example", 0)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, one := range x.Targets {
				words := []string{one.Target, one.State, one.Site}
				if one.First {
					words = append(words, "first")
				}
				if one.Rule != "" {
					words = append(words, one.Rule)
				}
				got = append(got, strings.Join(words, " "))
			}
			if all := strings.Join(got, ", "); all != tt.want {
				t.Errorf("%s\nwant %s", all, tt.want)
			}
			last := x.Steps[len(x.Steps)-1]
			if strings.HasSuffix(last.Rule, "; first those at site paris") != strings.Contains(tt.want, "paris first") || strings.Contains(tt.want, "forbidden") != strings.Contains(last.Rule, "(forbidden: "+link.TargetIsListening) {
				t.Errorf("%+v", last)
			}
		})
	}
}

// TestExplainPolicy: what the rules of each policy say, in order, and what the question leaves open.
func TestExplainPolicy(t *testing.T) {
	here := policy.Conditions{Sources: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	port := policy.Conditions{When: []policy.Expression{says{holds: true, uses: policy.UsesPort}}}
	set := func(d policy.Default, rules ...policy.Rule) policy.Set {
		return policy.Set{Name: "p", Default: d, Rules: rules}
	}
	for name, tt := range map[string]struct {
		policy  []policy.Set
		allowed bool
		reason  policy.Reason
		depends string
		steps   []Step // of policy
	}{
		"none":              {allowed: true},
		"a rule allows":     {[]policy.Set{set(policy.DefaultDeny, policy.Rule{Name: "r", Allow: true, Conditions: here})}, true, "", "", []Step{{"policy", "allowed", "policy p/r"}}},
		"a rule denies":     {[]policy.Set{set(policy.DefaultAllow, policy.Rule{Name: "r", Conditions: here})}, false, policy.PolicyDenied, "", []Step{{"policy", "denied: policy_denied", "policy p/r"}}},
		"the default does":  {[]policy.Set{set(policy.DefaultDeny)}, false, policy.PolicyDenied, "", []Step{{"policy", "denied: policy_denied", "policy p default"}}},
		"an error does":     {[]policy.Set{set(policy.DefaultAllow, policy.Rule{Name: "r", Conditions: policy.Conditions{When: []policy.Expression{says{err: errors.New("broken")}}}})}, false, policy.PolicyError, "", []Step{{"policy", "denied: policy_error", "policy p/r: broken"}}},
		"on trial":          {[]policy.Set{set(policy.DefaultAllow, policy.Rule{Name: "r", Observe: true, Conditions: here})}, true, "", "", []Step{{"policy", "would be denied, on trial", "policy p/r"}, {"policy", "allowed", "policy p default"}}},
		"the client's port": {[]policy.Set{set(policy.DefaultAllow, policy.Rule{Name: "r", Conditions: port})}, false, "", "source port", []Step{{"policy", "depends on the client's port", "policy p/r"}}},
		"the client's port, of a rule that allows": {[]policy.Set{set(policy.DefaultDeny, policy.Rule{Name: "r", Allow: true, Conditions: port})}, false, "", "source port",
			[]Step{{"policy", "depends on the client's port", "policy p/r"}}},
		"the client's port, on trial": {[]policy.Set{set(policy.DefaultAllow, policy.Rule{Name: "r", Observe: true, Conditions: port})}, true, "", "",
			[]Step{{"policy", "on trial, depends on the client's port", "policy p/r"}, {"policy", "allowed", "policy p default"}}},
		"the client's port doesn't matter": {[]policy.Set{set(policy.DefaultAllow, policy.Rule{Name: "a", Conditions: here}, policy.Rule{Name: "r", Conditions: port})}, false, policy.PolicyDenied, "",
			[]Step{{"policy", "denied: policy_denied", "policy p/a"}}},
		"the second denies": {[]policy.Set{set(policy.DefaultAllow), {Name: "q", Default: policy.DefaultDeny}}, false, policy.PolicyDenied, "",
			[]Step{{"policy", "allowed", "policy p default"}, {"policy", "denied: policy_denied", "policy q default"}}},
		"limits": {[]policy.Set{{Name: "p", Limits: []policy.FlowLimit{{PerSource: true, Flows: 3}}}}, true, "", "", []Step{{"policy", "limited", "policy p: limit source flows 3"}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &policy.Policy{Sets: tt.policy}
			w := connected(t, func(c *Config) { c.Policy = func() *policy.Policy { return p } })
			w.ok(w.EditService(t.Context(), op(Owner, subC), svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
				v := *old
				v.Names = []link.ResourceName{{Public: "db.contoso.example"}}
				return &v, nil
			}))
			w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
			x, err := w.Explain(t.Context(), as(Owner, subF), subF, netip.MustParseAddr("10.1.0.9"), "db.contoso.example", 0)
			if err != nil {
				t.Fatal(err)
			}
			var steps []Step
			for _, s := range x.Steps {
				if s.What == "policy" {
					steps = append(steps, s)
				}
			}
			if x.Allowed != tt.allowed || x.Reason != string(tt.reason) || x.Depends != tt.depends || !slices.Equal(steps, tt.steps) {
				t.Errorf("allowed %v, reason %q, depends %q: %+v", x.Allowed, x.Reason, x.Depends, x.Steps)
			}
		})
	}
}

// TestExplainAliases: what the record sets of a linked zone lead to is looked at as DNS follows it, and who judges what is asked elsewhere is asked about the
// name that is. A flow is judged by the name that the client asked for.
func TestExplainAliases(t *testing.T) {
	const target = "db.contoso.example"
	zone := func(result string) Step { return Step{"name", result, "private zone " + string(zoneF)} }
	for name, tt := range map[string]struct {
		records [][]string
		ask     link.Name
		want    []Step // from the first of the name on
		answer  string
		allowed bool
		reason  policy.Reason
	}{
		"to an endpoint": {[][]string{{"CNAME", "db", target + "."}}, "db.corp.example",
			[]Step{zone("alias of " + target), {"name", "endpoint 10.1.1.4", "name " + target}}, AnswerEndpoint, false, policy.NameDenied},
		"to nobody's name": {[][]string{{"CNAME", "db", "one.corp.example."}, {"CNAME", "one", "www.elsewhere.example."}}, "db.corp.example",
			[]Step{zone("alias of one.corp.example"), zone("alias of www.elsewhere.example"), {"name", AnswerPass, "no endpoint of the network has the name"},
				{"exit", "asked of www.elsewhere.example", "a rule"}}, AnswerPass, false, ""},
		"to an address": {[][]string{{"CNAME", "db", "one.corp.example."}, {"A", "one", "10.0.0.1"}}, "db.corp.example",
			[]Step{zone("alias of one.corp.example"), zone("zone 10.0.0.1")}, AnswerZone, false, ""},
		"to nothing": {[][]string{{"CNAME", "db", "one.corp.example."}}, "db.corp.example",
			[]Step{zone("alias of one.corp.example"), zone(AnswerDenied)}, AnswerDenied, false, ""},
		"of a service": {[][]string{{"SRV", "_sip._tcp", "0 5 5060 one.corp.example."}}, "_sip._tcp.corp.example", []Step{zone(AnswerNoData)}, AnswerNoData, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := connected(t, func(c *Config) {
				c.Exits = []func(link.ID, link.Name) (string, string){func(_ link.ID, name link.Name) (string, string) { return "asked of " + string(name), "a rule" }}
			})
			w.ok(w.EditService(t.Context(), op(Owner, subC), svcC, func(_ *link.Snapshot, old *link.Service) (*link.Service, error) {
				v := *old
				v.Names, v.Pin = []link.ResourceName{{Public: target}}, link.PinTLS
				return &v, nil
			}))
			w.ok(w.Decide(t.Context(), op(Approver, subC), decision(link.Approved)))
			w.ok(w.putZoneAs(op(Owner, subF), zoneF, netF))
			for _, r := range tt.records {
				w.ok(w.putRecordAs(op(Owner, subF), zoneF, r[0], r[1], r[2:]...))
			}
			x, err := w.Explain(t.Context(), as(Owner, subF), subF, netip.MustParseAddr("10.1.0.9"), tt.ask, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := x.Steps[1:min(len(x.Steps), 1+len(tt.want))]; x.Answer != tt.answer || x.Allowed != tt.allowed || x.Reason != string(tt.reason) || !slices.Equal(got, tt.want) {
				t.Errorf("%s, allowed %v, reason %q: %+v", x.Answer, x.Allowed, x.Reason, x.Steps)
			}
		})
	}
}
