package link

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for name, tt := range map[string]struct {
		s    string
		addr string
		name NamePort
		bad  string // part of the error
	}{
		"address":              {s: "10.0.0.4:443", addr: "10.0.0.4:443"},
		"IPv4-mapped":          {s: "[::ffff:10.0.0.4]:443", addr: "10.0.0.4:443"},
		"IPv6":                 {s: "[2001:db8::4]:443", addr: "[2001:db8::4]:443"},
		"name":                 {s: "SQL-1.internal.example.:1433", name: NamePort{"sql-1.internal.example", 1433}},
		"one label":            {s: "db:5432", name: NamePort{"db", 5432}},
		"digits in front":      {s: "1.2.3.example:1", name: NamePort{"1.2.3.example", 1}},
		"most":                 {s: "db:65535", name: NamePort{"db", 65535}},
		"no port":              {s: "db", bad: "NAME:PORT"},
		"port 0":               {s: "db:0", bad: "NAME:PORT"},
		"port too large":       {s: "db:65536", bad: "NAME:PORT"},
		"port with a sign":     {s: "db:+443", bad: "NAME:PORT"},
		"port with a zero":     {s: "db:0443", bad: "NAME:PORT"},
		"port empty":           {s: "db:", bad: "NAME:PORT"},
		"two ports":            {s: "db:1:2", bad: "NAME:PORT"},
		"address miswritten":   {s: "10.0.0.300:443", bad: "neither an address nor a name"},
		"address with 3 parts": {s: "127.1:443", bad: "neither an address nor a name"},
		"a number":             {s: "2130706433:443", bad: "neither an address nor a name"},
		"underscore":           {s: "_db.example:443", bad: "letters"},
		"pattern":              {s: "*.example:443", bad: "letters"},
		"empty":                {s: "", bad: "NAME:PORT"},
		"too long":             {s: strings.Repeat("a.", 127) + "example:443", bad: "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, n, err := ParseTarget(tt.s)
			if tt.bad != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.bad) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || n != tt.name || addr.IsValid() != (tt.addr != "") || addr.IsValid() && addr.String() != tt.addr {
				t.Fatalf("%v, %v, %v", addr, n, err)
			}
		})
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"10.0.0.4:443", "[::1]:1", "db.example:443", "1.2:3", "db:", ":1", "a.b.c.:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, name, err := ParseTarget(s)
		switch {
		case err != nil || addr.IsValid():
			return
		case name.check() != nil:
			t.Fatalf("%q is %+v, which isn't allowed", s, name)
		}
		if again, err := ParseNamePort(name.String()); err != nil || again != name {
			t.Fatalf("%q is %v, and read again %v (%v)", s, name, again, err)
		}
	})
}

// What names add is in fields of the service's own, so that a service without has the form of before.
func TestNamesAreStored(t *testing.T) {
	v := published("", "svc")
	was, err := json.Marshal(v)
	if err != nil || strings.Contains(string(was), "ames\":{") || strings.Contains(string(was), "targetNames") || strings.Contains(string(was), "within") {
		t.Fatalf("%s, %v", was, err)
	}
	v.TargetNames = []NamePort{{"db.example", 443}}
	v.NameWeights = map[NamePort]int{{"db.example", 443}: 3}
	v.Within = prefixes("10.0.0.0/8")
	text, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(text), `"targetNames":["db.example:443"],"within":["10.0.0.0/8"]`) || !strings.Contains(string(text), `"nameWeights":{"db.example:443":3}`) {
		t.Fatalf("%s, %v", text, err)
	}
	var again Service
	if err := json.Unmarshal(text, &again); err != nil || !slices.Equal(again.TargetNames, v.TargetNames) || again.NameWeight(v.TargetNames[0]) != 3 || !slices.Equal(again.Within, v.Within) {
		t.Fatalf("%+v, %v", again, err)
	}
}

func TestTargetNamesCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*Service)
		bad  string
	}{
		"a name alone":  {func(v *Service) { v.Targets = nil }, ""},
		"twice":         {func(v *Service) { v.TargetNames = append(v.TargetNames, v.TargetNames[0]) }, "twice"},
		"another port":  {func(v *Service) { v.TargetNames = append(v.TargetNames, NamePort{"db.example", 444}) }, ""},
		"upper case":    {func(v *Service) { v.TargetNames[0].Name = "DB.example" }, "canonical"},
		"an address":    {func(v *Service) { v.TargetNames[0].Name = "10.0.0.4" }, "canonical"},
		"no port":       {func(v *Service) { v.TargetNames[0].Port = 0 }, "no port"},
		"within hosts":  {func(v *Service) { v.Within = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} }, "host bits"},
		"within a lot":  {func(v *Service) { v.Within = make([]netip.Prefix, MaxWithin+1) }, "65 prefixes"},
		"within mapped": {func(v *Service) { v.Within = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} }, "IPv4-mapped"},
		"none at all":   {func(v *Service) { v.Targets, v.TargetNames = nil, nil }, "at least one target"},
	} {
		t.Run(name, func(t *testing.T) {
			v := published("", "svc")
			v.TargetNames = []NamePort{{"db.example", 443}}
			tt.edit(&v)
			_, _, err := Empty().Apply(noon, PutService{Service: v})
			if tt.bad == "" && err != nil || tt.bad != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.bad)) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestRefusesFound is A21, A22 and E23 where a name leads there: who holds the name isn't who has written the service, not
// even where that is the operator.
func TestRefusesFound(t *testing.T) {
	backend := published("c", "s4/g/backend")
	backend.Targets = []Target{{Addr: netip.MustParseAddrPort("198.51.100.7:443")}}
	s := must(t, Empty(),
		PutNetwork{vnet("c", "s4/g/v", "10.7.0.0/16", "10.7.1.0/24")},
		PutNetwork{Network{ID: "mine", Prefixes: prefixes("10.8.0.0/16"), Pools: prefixes("10.200.0.0/24")}},
		PutService{Service: backend})
	ground := Ground{
		Listeners: []netip.AddrPort{netip.MustParseAddrPort("[::]:53")},
		Local:     func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.50") },
	}
	const all, some = "operator tenant granted within", "operator tenant"
	for _, tt := range []struct {
		target, rule, who string
	}{
		{"203.0.113.9:443", "", ""},
		{"10.200.0.77:443", TargetIsPool, all},
		{"[64:ff9b::10.200.0.77]:443", TargetIsPool, all},
		{"[2002:ac8:4d::1]:443", TargetIsPool, all},
		{"192.0.2.50:53", "this node", all},
		{"127.0.0.1:443", "loopback", some},
		{"[::1]:443", "loopback", some},
		{"[::127.0.0.1]:443", "loopback", some},
		{"[64:ff9b::127.0.0.1]:443", "loopback", some},
		{"[2002:7f00:1::1]:443", "loopback", some},
		{"169.254.169.254:80", "metadata", all},
		{"[64:ff9b::169.254.169.254]:80", "metadata", some},
		{"[fd00:ec2::254]:80", "metadata", some},
		{"[fe80::1]:443", "link-local", all},
		{"0.0.0.0:443", "this host", all},
		{"192.0.2.50:443", TargetIsLocal, some},
		{"203.0.113.9:2379", "port 2379", some},
		{"10.7.0.9:443", TargetIsForeign, some},
		{"10.8.0.9:443", TargetIsForeign, "tenant"}, // the operator's network
		{"198.51.100.7:443", TargetIsAnothers, some},
		{"[64:ff9b::c633:6407]:443", TargetIsAnothers, some},
	} {
		target := netip.MustParseAddrPort(tt.target)
		here := []netip.Prefix{netip.PrefixFrom(target.Addr(), target.Addr().BitLen())}
		for _, who := range strings.Fields(all) {
			v := &Service{TargetNames: []NamePort{{"db.example", target.Port()}}}
			switch who {
			case "tenant":
				v.Tenant = "b"
			case "granted":
				v.Tenant, v.Reach = "b", here
			case "within":
				v.Within = here
			}
			why := s.Refuses(v, target, ground)
			want := slices.Contains(strings.Fields(tt.who), who)
			if want != (why != "") || want && !strings.Contains(why, tt.rule) {
				t.Errorf("%s of %s: %q, want refused %v by %q", tt.target, who, why, want, tt.rule)
			}
		}
	}
}

// Within bounds where names lead, whoever's the service is, and nothing that is written down.
func TestWithin(t *testing.T) {
	s := must(t, Empty())
	v := &Service{
		Tenant: "b", TargetNames: []NamePort{{"db.example", 443}}, Within: prefixes("10.20.0.0/16"),
		Targets: []Target{{Addr: netip.MustParseAddrPort("10.30.0.1:443")}},
	}
	for target, want := range map[string]string{
		"10.20.3.4:443": "", "10.30.0.1:443": "", "10.30.0.2:443": TargetIsOutside, "10.30.0.1:444": TargetIsOutside,
		"[64:ff9b::10.20.3.4]:443": TargetIsOutside,
	} {
		if why := s.Refuses(v, netip.MustParseAddrPort(target), Ground{}); why != want {
			t.Errorf("%s: %q, want %q", target, why, want)
		}
	}
	v.Within = prefixes("127.0.0.0/8")
	if why := s.Refuses(v, netip.MustParseAddrPort("127.0.0.1:443"), Ground{}); why == "" {
		t.Error("a tenant gives itself loopback")
	}
}

// A service whose names may lead further takes approvals back, as one with another target does.
func TestNamesWiden(t *testing.T) {
	base := func() *Service {
		return &Service{Port: 443, TargetNames: []NamePort{{"a.example", 443}}, Within: prefixes("10.20.0.0/16")}
	}
	for name, tt := range map[string]struct {
		edit func(*Service)
		want bool
	}{
		"nothing":        {func(*Service) {}, false},
		"another name":   {func(v *Service) { v.TargetNames = append(v.TargetNames, NamePort{"b.example", 443}) }, true},
		"a name less":    {func(v *Service) { v.TargetNames, v.Targets = nil, nil }, false},
		"another port":   {func(v *Service) { v.TargetNames = []NamePort{{"a.example", 444}} }, true},
		"within more":    {func(v *Service) { v.Within = prefixes("10.0.0.0/8") }, true},
		"within less":    {func(v *Service) { v.Within = prefixes("10.20.1.0/24") }, false},
		"within nothing": {func(v *Service) { v.Within = nil }, true},
		"another weight": {func(v *Service) { v.NameWeights = map[NamePort]int{{"a.example", 443}: 0} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := base()
			tt.edit(v)
			if got := widens(base(), v); got != tt.want {
				t.Errorf("it widens: %v", got)
			}
		})
	}
	none := base()
	none.Within = nil
	if !widens(none, base()) { // to the operator's service it gives what is in it
		t.Error("within where there was none doesn't widen")
	}
}

// A flow stays for as long as its target is written down, or a name that it was found by.
func TestSends(t *testing.T) {
	a, b := NamePort{"a.example", 443}, NamePort{"b.example", 443}
	at := netip.MustParseAddrPort("10.0.0.1:443")
	v := &Service{Targets: []Target{{Addr: netip.MustParseAddrPort("10.0.0.2:443")}}, TargetNames: []NamePort{a}}
	for _, tt := range []struct {
		to   netip.AddrPort
		by   []NamePort
		want bool
	}{{at, nil, false}, {at, []NamePort{a}, true}, {at, []NamePort{b, a}, true}, {at, []NamePort{b}, false}, {v.Targets[0].Addr, nil, true}} {
		if got := v.Sends(tt.to, tt.by); got != tt.want {
			t.Errorf("%v by %v: %v", tt.to, tt.by, got)
		}
	}
}
