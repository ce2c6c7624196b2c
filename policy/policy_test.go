package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

var at = time.Unix(1_800_000_000, 0)

// base is a world of one network and two services, one pinned, with an endpoint each.
func base(t testing.TB) *link.Snapshot {
	t.Helper()
	target := []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:443")}}
	all := []link.Party{link.Anyone}
	s, _, err := link.Empty().Apply(at,
		link.PutNetwork{Network: link.Network{
			ID:       "corp",
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")},
			Pools:    []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24"), netip.MustParsePrefix("fd00:200::/120")},
		}},
		link.PutService{Service: link.Service{
			ID: "sql", Alias: "sql.00000000000000000000000000000001.postern", Port: 1433, Targets: target,
			Visible: all, AutoApprove: all, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
		}},
		link.PutService{Service: link.Service{
			ID: "web", Alias: "web.00000000000000000000000000000002.postern", Port: 443, Targets: target,
			Visible: all, AutoApprove: all, Pin: link.PinTLS, ProxyProtocol: link.ProxyV2,
			Names: []link.ResourceName{{Public: "allowed.example"}, {Public: "*.wild.example"}},
		}},
		link.PutEndpoint{Endpoint: link.Endpoint{
			ID: "sql-corp", Network: "corp", Service: "sql", Address: netip.MustParseAddr("10.200.0.5"),
			Allow: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")},
		}},
		link.PutEndpoint{Endpoint: link.Endpoint{
			ID: "web-corp", Network: "corp", Service: "web", Address: netip.MustParseAddr("10.200.0.6"),
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// change applies changes that are made from the connection of an endpoint.
func change(t testing.TB, s *link.Snapshot, endpoint link.ID, f func(link.LinkID) []link.Change) *link.Snapshot {
	t.Helper()
	s, _, err := s.Apply(at, f(s.Endpoint(endpoint).Connection.LinkID)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecide(t *testing.T) {
	s := base(t)
	const client = "10.1.2.3:40000"
	tests := []struct {
		name          string
		source, local string
		judged        bool
		sni           link.Name
		reason        Reason // empty: allowed
		rule          string
	}{
		{"source in the allow-list", client, "10.200.0.5:1433", false, "", "", "allow-list 10.1.2.0/24"},
		{"X25 source in the network, not in the list", "10.1.3.3:1", "10.200.0.5:1433", false, "", SourceDenied, "not in the allow-list"},
		{"source in the network, no list", client, "10.200.0.6:443", true, "allowed.example", "", "name allowed.example"},
		{"IPv6 source in the network", "[fd00:1::7]:1", "10.200.0.6:443", true, "allowed.example", "", "name allowed.example"},
		{"X25 source outside", "192.0.2.9:1", "10.200.0.6:443", true, "allowed.example", SourceDenied, "not in network corp"},
		{"X22 mapped source is in no IPv4 prefix", "[::ffff:10.1.2.3]:1", "10.200.0.5:1433", false, "", SourceDenied, "not in the allow-list"},
		{"source with a zone", "[fd00:1::7%eth0]:1", "10.200.0.6:443", false, "", SourceDenied, "not in network corp"},
		{"no source", "", "10.200.0.6:443", false, "", SourceDenied, "not in network corp"},
		{"X25 address of the pool, not assigned", client, "10.200.0.7:443", false, "", NoEndpoint, "no endpoint has the address"},
		{"no local address", client, "", false, "", NoEndpoint, "no endpoint has the address"},
		{"X26 another port", client, "10.200.0.5:443", false, "", NoPort, "service has another port"},
		{"X02 name of another resource", client, "10.200.0.6:443", true, "other.example", NameDenied, "not a name of the service"},
		{"X03 longer on the right", client, "10.200.0.6:443", true, "allowed.example.evil.test", NameDenied, "not a name of the service"},
		{"X03 longer on the left", client, "10.200.0.6:443", true, "evilallowed.example", NameDenied, "not a name of the service"},
		{"X03 below", client, "10.200.0.6:443", true, "www.allowed.example", NameDenied, "not a name of the service"},
		{"X03 hyphen", client, "10.200.0.6:443", true, "allowed.example-evil.test", NameDenied, "not a name of the service"},
		{"wildcard", client, "10.200.0.6:443", true, "a.wild.example", "", "name *.wild.example"},
		{"wildcard, two labels", client, "10.200.0.6:443", true, "a.b.wild.example", NameDenied, "not a name of the service"},
		{"wildcard, no label", client, "10.200.0.6:443", true, "wild.example", NameDenied, "not a name of the service"},
		{"judged without a name", client, "10.200.0.6:443", true, "", NoName, "no name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := Request{Judged: test.judged, Name: test.sni}
			if test.source != "" {
				r.Source = netip.MustParseAddrPort(test.source)
			}
			if test.local != "" {
				r.Local = netip.MustParseAddrPort(test.local)
			}
			v := Decide(s, r)
			if v.Allow != (test.reason == "") || v.Reason != test.reason || v.Rule != test.rule || v.Unjudged {
				t.Errorf("allow %v, reason %q, rule %q, unjudged %v", v.Allow, v.Reason, v.Rule, v.Unjudged)
			}
			if v.Reason != "" && !slices.Contains(Reasons(), v.Reason) {
				t.Errorf("reason %q is not in the list", v.Reason)
			}
		})
	}
}

// A pinned service is allowed only so far as to read the first bytes.
func TestDecideUnjudged(t *testing.T) {
	v := Decide(base(t), Request{
		Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("10.200.0.6:443"),
	})
	if !v.Allow || !v.Unjudged {
		t.Errorf("allow %v, unjudged %v", v.Allow, v.Unjudged)
	}
}

func TestDecideFollowsTheConnection(t *testing.T) {
	r := Request{Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("10.200.0.5:1433")}
	tests := []struct {
		name    string
		reason  Reason
		changes func(link.LinkID) []link.Change
	}{
		{"rejected", NotApproved, func(id link.LinkID) []link.Change {
			return []link.Change{link.Decide{Endpoint: "sql-corp", LinkID: id, State: link.Rejected}}
		}},
		{"disconnected", NotApproved, func(id link.LinkID) []link.Change {
			return []link.Change{link.Disconnect{Endpoint: "sql-corp", LinkID: id}}
		}},
		{"suspended", Suspended, func(id link.LinkID) []link.Change {
			return []link.Change{link.Suspend{Endpoint: "sql-corp", LinkID: id}}
		}},
		{"resumed", "", func(id link.LinkID) []link.Change {
			return []link.Change{link.Suspend{Endpoint: "sql-corp", LinkID: id}, link.Resume{Endpoint: "sql-corp", LinkID: id}}
		}},
		{"service deleted", NotApproved, func(link.LinkID) []link.Change {
			return []link.Change{link.DeleteService{ID: "sql", Force: true}}
		}},
		{"endpoint deleted", NoEndpoint, func(link.LinkID) []link.Change {
			return []link.Change{link.DeleteEndpoint{ID: "sql-corp"}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := Decide(change(t, base(t), "sql-corp", test.changes), r)
			if v.Allow != (test.reason == "") || v.Reason != test.reason {
				t.Errorf("allow %v, reason %q, rule %q", v.Allow, v.Reason, v.Rule)
			}
		})
	}
}

func TestDecideFailsClosed(t *testing.T) {
	if v := Decide(nil, Request{}); v.Allow || v.Reason != PolicyError {
		t.Errorf("no snapshot: allow %v, reason %q", v.Allow, v.Reason)
	}
	if (Verdict{}).Allow {
		t.Error("the zero verdict allows")
	}
	v := name(Verdict{Service: &link.Service{Pin: "of-tomorrow"}}, Request{Judged: true, Name: "allowed.example"}, "")
	if v.Allow || v.Reason != PolicyError {
		t.Errorf("unknown pin: allow %v, reason %q", v.Allow, v.Reason)
	}
}

func TestReasonsAreAClosedList(t *testing.T) {
	seen := map[Reason]bool{}
	for _, r := range Reasons() {
		if r == "" || seen[r] {
			t.Errorf("reason %q is empty or comes twice", r)
		}
		seen[r] = true
	}
	if len(seen) != 25 {
		t.Errorf("%d reasons; a new one belongs into the documentation too", len(seen))
	}
	Reasons()[0] = "changed"
	if Reasons()[0] == "changed" {
		t.Error("the list can be changed from outside")
	}
}

func BenchmarkDecide(b *testing.B) {
	s := base(b)
	for name, r := range map[string]Request{
		"address": {Source: netip.MustParseAddrPort("10.1.2.3:4"), Local: netip.MustParseAddrPort("10.200.0.5:1433")},
		"name": {Source: netip.MustParseAddrPort("10.1.2.3:4"), Local: netip.MustParseAddrPort("10.200.0.6:443"),
			Judged: true, Name: "allowed.example"},
		"denied": {Source: netip.MustParseAddrPort("192.0.2.3:4"), Local: netip.MustParseAddrPort("10.200.0.6:443")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decide(s, r)
			}
		})
	}
}

// TestNestedNetworks: a client of the narrower of two networks isn't one of the wider, unless an
// allow-list says so or the wider is found by its listener.
func TestNestedNetworks(t *testing.T) {
	s, _, err := base(t).Apply(at, link.PutNetwork{Network: link.Network{ID: "lab", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.66.0/24")}}})
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Source: netip.MustParseAddrPort("10.1.66.1:1"), Local: netip.MustParseAddrPort("10.200.0.6:443")}
	if v := Decide(s, r); v.Allow || v.Reason != SourceDenied {
		t.Errorf("a client of lab in the prefix of corp: %+v, want %s", v, SourceDenied)
	}
	listed := *s.Endpoint("web-corp")
	listed.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	if s, _, err = s.Apply(at, link.PutEndpoint{Endpoint: listed}); err != nil {
		t.Fatal(err)
	}
	if v := Decide(s, r); !v.Allow {
		t.Errorf("a client of lab that the allow-list names: %+v, want it allowed", v)
	}
}
