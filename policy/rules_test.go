package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// told is an expression whose answer is told.
type told struct {
	holds bool
	err   error
	uses  Uses
}

func (e told) Holds(Facts) (bool, error) { return e.holds, e.err }
func (e told) Uses() Uses                { return e.uses }
func (e told) String() string            { return "told" }

func deny(name string, c Conditions) Rule { return Rule{Name: name, Conditions: c} }

func allow(name string, c Conditions) Rule { return Rule{Name: name, Allow: true, Conditions: c} }

func observe(name string, c Conditions) Rule { return Rule{Name: name, Observe: true, Conditions: c} }

func one(d Default, rules ...Rule) *Policy {
	return &Policy{Sets: []Set{{Name: "p", Default: d, Rules: rules}}}
}

// web is a request to the pinned service, sql one to the other.
func web(name link.Name) Request {
	return Request{Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("10.200.0.6:443"),
		Judged: name != "", Name: name, At: at}
}

func sql() Request {
	return Request{Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("10.200.0.5:1433"), At: at}
}

func TestRules(t *testing.T) {
	s := base(t)
	src := func(p string) Conditions { return Conditions{Sources: []netip.Prefix{netip.MustParsePrefix(p)}} }
	named := func(n link.Name) Conditions { return Conditions{Names: []link.Name{n}} }
	when := func(e told) Conditions { return Conditions{When: []Expression{e}} }
	const here, elsewhere = "10.1.2.0/24", "10.9.0.0/16"
	broken := errors.New("broken")
	tests := []struct {
		name     string
		policy   *Policy
		r        Request
		reason   Reason // empty: allowed
		rule     string // of a refusal
		unjudged bool
		observed []string
	}{
		{name: "no policy", r: sql()},
		{name: "no rule, no default: for limits and program", policy: one(Unset), r: sql()},
		{name: "rules without a default deny", policy: one(Unset, allow("a", src(elsewhere))), r: sql(), reason: PolicyDenied, rule: "policy p default"},
		{name: "rules on trial alone cut nobody", policy: one(Unset, observe("a", src(here)), observe("b", src(elsewhere))), r: sql(), observed: []string{"p/a"}},
		{name: "one that is enforced brings the default back", policy: one(Unset, observe("a", src(here)), deny("b", src(elsewhere))), r: sql(),
			reason: PolicyDenied, rule: "policy p default", observed: []string{"p/a"}},
		{name: "default allow", policy: one(DefaultAllow, deny("a", src(elsewhere))), r: sql()},
		{name: "default deny alone", policy: one(DefaultDeny), r: sql(), reason: PolicyDenied, rule: "policy p default"},
		{name: "default on trial", policy: one(DefaultObserve), r: sql(), observed: []string{"p/default"}},
		{name: "the first that matches allows", policy: one(DefaultDeny, allow("a", src(here)), deny("b", src(here))), r: sql()},
		{name: "the first that matches denies", policy: one(DefaultAllow, deny("a", src(here)), allow("b", src(here))), r: sql(), reason: PolicyDenied, rule: "policy p/a"},
		{name: "all conditions must hold", policy: one(DefaultAllow, deny("a", Conditions{Services: []link.ID{"sql"}, Ports: []PortRange{{1, 100}}})), r: sql()},
		{name: "one value of each does", policy: one(DefaultAllow, deny("a", Conditions{Services: []link.ID{"web", "sql"}, Ports: []PortRange{{1, 100}, {1433, 1433}}})), r: sql(),
			reason: PolicyDenied, rule: "policy p/a"},
		{name: "endpoint and network", policy: one(DefaultDeny, allow("a", Conditions{Endpoints: []link.ID{"sql-corp"}, Networks: []link.ID{"corp"}})), r: sql()},
		{name: "another tenant", policy: one(DefaultDeny, allow("a", Conditions{Tenants: []string{"contoso"}})), r: sql(), reason: PolicyDenied, rule: "policy p default"},
		{name: "every set must allow", policy: &Policy{Sets: []Set{{Name: "a", Default: DefaultAllow}, {Name: "b", Default: DefaultDeny}}}, r: sql(),
			reason: PolicyDenied, rule: "policy b default"},
		{name: "G09 what the state denies stays so", policy: one(DefaultAllow, allow("a", Conditions{})),
			r: Request{Source: netip.MustParseAddrPort("10.9.9.9:1"), Local: sql().Local, At: at}, reason: SourceDenied, rule: "not in the allow-list"},

		{name: "on trial, it decides nothing", policy: one(DefaultAllow, observe("a", src(here)), deny("b", src(here))), r: sql(),
			reason: PolicyDenied, rule: "policy p/b", observed: []string{"p/a"}},
		{name: "several on trial", policy: one(DefaultObserve, observe("a", src(here)), observe("b", src(elsewhere)), observe("c", src(here))), r: sql(),
			observed: []string{"p/a", "p/c", "p/default"}},
		{name: "on trial, an error is noted", policy: one(DefaultAllow, observe("a", when(told{err: broken}))), r: sql(), observed: []string{"p/a"}},
		{name: "an error refuses, of a rule that allows too", policy: one(DefaultAllow, allow("a", when(told{err: broken}))), r: sql(),
			reason: PolicyError, rule: "policy p/a: broken"},
		{name: "no error where it isn't asked", policy: one(DefaultAllow, deny("a", Conditions{Ports: []PortRange{{1, 1}}, When: []Expression{told{err: broken}}})), r: sql()},
		{name: "the time isn't known", policy: one(DefaultAllow, allow("a", Conditions{Times: []Window{{0, 1440, 0, nil}}})),
			r: Request{Source: sql().Source, Local: sql().Local}, reason: PolicyError, rule: "policy p/a: the time isn't known"},

		{name: "the client's port isn't known", policy: one(DefaultAllow, deny("a", when(told{uses: UsesPort}))),
			r: Request{Source: netip.MustParseAddrPort("10.1.2.3:0"), Local: sql().Local, At: at}, reason: PolicyError, rule: "policy p/a: the client's port isn't known"},
		{name: "nor is it on trial", policy: one(DefaultAllow, observe("a", when(told{uses: UsesPort, holds: true}))),
			r: Request{Source: netip.MustParseAddrPort("10.1.2.3:0"), Local: sql().Local, At: at}},

		{name: "a name that is denied", policy: one(DefaultAllow, deny("a", named("allowed.example"))), r: web("allowed.example"), reason: PolicyDenied, rule: "policy p/a"},
		{name: "another name", policy: one(DefaultAllow, deny("a", named("*.wild.example"))), r: web("allowed.example")},
		{name: "the name isn't known: it waits", policy: one(DefaultAllow, deny("a", named("allowed.example")), deny("b", src(here))), r: web(""), unjudged: true},
		{name: "what needs no name is denied before", policy: one(DefaultAllow, deny("a", src(here)), deny("b", named("allowed.example"))), r: web(""),
			reason: PolicyDenied, rule: "policy p/a"},
		{name: "a rule that can't match for another reason waits for nothing", r: web(""), reason: PolicyDenied, rule: "policy p default",
			policy: one(DefaultDeny, allow("a", Conditions{Sources: src(elsewhere).Sources, Names: []link.Name{"allowed.example"}}))},
		{name: "an expression of the name waits", policy: one(DefaultDeny, allow("a", when(told{uses: UsesName}))), r: web(""), unjudged: true},
		{name: "a later set denies without the name", r: web(""), reason: PolicyDenied, rule: "policy b default",
			policy: &Policy{Sets: []Set{{Name: "a", Rules: []Rule{deny("r", named("allowed.example"))}}, {Name: "b", Default: DefaultDeny}}}},
		{name: "on trial, nothing waits", policy: one(DefaultDeny, observe("a", named("allowed.example"))), r: web(""), reason: PolicyDenied, rule: "policy p default"},
		{name: "not pinned: no name, and no pattern matches", policy: one(DefaultDeny, allow("a", named("*.wild.example"))), r: sql(), reason: PolicyDenied, rule: "policy p default"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := test.policy.Decide(s, test.r)
			if v.Allow != (test.reason == "") || v.Reason != test.reason || !v.Allow && v.Rule != test.rule || v.Unjudged != test.unjudged {
				t.Errorf("allow %v, reason %q, rule %q, unjudged %v", v.Allow, v.Reason, v.Rule, v.Unjudged)
			}
			if !slices.Equal(v.Observed, test.observed) {
				t.Errorf("observed %q, want %q", v.Observed, test.observed)
			}
		})
	}
}

func TestTimed(t *testing.T) {
	var none *Policy
	window := Conditions{Times: []Window{{0, 1440, 0, nil}}}
	for i, p := range []*Policy{none, one(DefaultDeny, deny("a", Conditions{})), one(DefaultDeny, observe("a", window)),
		one(DefaultDeny, deny("a", Conditions{When: []Expression{told{uses: UsesTime | UsesName}}}))} {
		if got, want := p.Timed(), i >= 2; got != want {
			t.Errorf("%d: timed %v, want %v", i, got, want)
		}
	}
}

func TestWindow(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	weekdays := Day(1) | Day(2) | Day(3) | Day(4) | Day(5)
	office, night := Window{8 * 60, 18 * 60, weekdays, berlin}, Window{22 * 60, 6 * 60, weekdays, berlin}
	tests := []struct {
		name  string
		w     Window
		at    string
		holds bool
	}{
		{"the first minute is in", office, "2026-01-16T08:00:00+01:00", true},
		{"the minute before isn't", office, "2026-01-16T07:59:59+01:00", false},
		{"the last minute is in", office, "2026-01-16T17:59:59+01:00", true},
		{"the minute of the end isn't", office, "2026-01-16T18:00:00+01:00", false},
		{"saturday", office, "2026-01-17T12:00:00+01:00", false},
		{"summer time", office, "2026-07-17T06:30:00Z", true},
		{"winter time", office, "2026-01-16T06:30:00Z", false},
		{"friday night", night, "2026-01-16T23:00:00+01:00", true},
		{"belongs to the day on which it begins", night, "2026-01-17T05:59:00+01:00", true},
		{"sunday night isn't", night, "2026-01-18T23:00:00+01:00", false},
		{"nor the monday morning after it", night, "2026-01-19T05:00:00+01:00", false},
		{"the end of the night", night, "2026-01-17T06:00:00+01:00", false},
		{"an hour that the clocks leave out doesn't come", Window{2 * 60, 3 * 60, 0, berlin}, "2026-03-29T01:30:00Z", false},
		{"an hour that they show twice is in it, the first time", Window{2 * 60, 3 * 60, 0, berlin}, "2026-10-25T00:30:00Z", true},
		{"and the second", Window{2 * 60, 3 * 60, 0, berlin}, "2026-10-25T01:30:00Z", true},
		{"UTC without a zone", Window{8 * 60, 9 * 60, 0, nil}, "2026-07-17T08:30:00Z", true},
		{"all day", Window{0, 1440, 0, nil}, "2026-07-17T23:59:59Z", true},
	}
	for _, test := range tests {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := test.w.Holds(at); got != test.holds {
			t.Errorf("%s: %s at %s: %v", test.name, test.w, test.at, got)
		}
	}
}

// An egress list that is narrowed ends what it had let in.
func TestEgressHoldsForFlows(t *testing.T) {
	s := base(t)
	n := *s.Network("corp")
	n.Egress = []string{"web"}
	s, _, err := s.Apply(at, link.PutNetwork{Network: n})
	if err != nil {
		t.Fatal(err)
	}
	if v := Decide(s, sql()); v.Allow || v.Reason != PolicyDenied || v.Rule != "network corp: not in the egress list" {
		t.Errorf("sql: allow %v, reason %q, rule %q", v.Allow, v.Reason, v.Rule)
	}
	if v := Decide(s, web("allowed.example")); !v.Allow {
		t.Errorf("web: reason %q, rule %q", v.Reason, v.Rule)
	}
}

func limited(l ...FlowLimit) *Policy { return &Policy{Sets: []Set{{Name: "p", Limits: l}}} }

func TestMeter(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")
	var m Meter
	now := at
	enter := func(p *Policy, endpoint link.ID, source netip.Addr, want string) {
		t.Helper()
		set, rule, ok := m.Enter(p, endpoint, source, now)
		if ok != (want == "") || rule != want || !ok && set != "p" {
			t.Errorf("%s from %s: %v, %q of %q, want %q", endpoint, source, ok, rule, set, want)
		}
	}
	enter(nil, "e", a, "") // live flows count for a limit that comes later
	two := limited(FlowLimit{PerSource: true, Flows: 2})
	enter(two, "e", a, "")
	enter(two, "f", a, "policy p: limit source flows 2")
	enter(two, "e", b, "")
	m.Leave("e", a)
	enter(two, "f", a, "")
	enter(limited(FlowLimit{Flows: 2}), "e", a, "policy p: limit endpoint flows 2")
	enter(limited(FlowLimit{Flows: 2}), "f", b, "")

	rate := FlowLimit{PerSource: true, Rate: 2, Every: time.Second, Burst: 3}
	for range 3 {
		enter(limited(rate), "g", a, "")
	}
	enter(limited(rate), "g", a, "policy p: limit source rate 2/s") // another policy with the same limit: it goes on
	enter(limited(rate), "g", b, "")
	now = now.Add(500 * time.Millisecond)
	enter(limited(rate), "g", a, "")
	enter(limited(rate), "g", a, "policy p: limit source rate 2/s")
	now = now.Add(time.Hour)
	for range 3 {
		enter(limited(rate), "g", a, "")
	}
	enter(limited(rate), "g", a, "policy p: limit source rate 2/s")
}

// X26, P09: a rate has bounded memory, and who comes from many addresses gets no more by it.
func TestMeterIsBounded(t *testing.T) {
	var m Meter
	p := limited(FlowLimit{PerSource: true, Rate: 1, Every: time.Minute})
	refused := 0
	for i := range maxBuckets + 1000 {
		source := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if _, _, ok := m.Enter(p, "e", source, at); ok {
			m.Leave("e", source)
		} else {
			refused++
		}
	}
	for _, r := range m.rates {
		if len(r.full) > maxBuckets+1 {
			t.Errorf("%d buckets", len(r.full))
		}
	}
	if refused != 999 || len(m.live) != 0 {
		t.Errorf("%d refused of 1000 beyond the bound, %d counted as live", refused, len(m.live))
	}
	if _, _, ok := m.Enter(p, "e", netip.MustParseAddr("192.0.2.1"), at.Add(2*time.Minute)); !ok {
		t.Error("refused after all were quiet")
	}
}

func BenchmarkRules(b *testing.B) {
	s := base(b)
	for _, n := range []int{0, 10, 100} {
		var rules []Rule
		for i := range n {
			rules = append(rules, deny(fmt.Sprint(i), Conditions{Sources: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i)}), 16)}}))
		}
		p := one(DefaultAllow, rules...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(s, web("allowed.example"))
			}
		})
	}
}
