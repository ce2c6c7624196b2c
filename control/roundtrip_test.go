package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// notOfManifests are the fields of objects that a manifest doesn't carry, each with its reason. A field that is neither here nor
// survives export and apply fails TestRoundTrip.
var notOfManifests = map[string]string{
	"Network.ID": "a manifest has the name and its group", "Service.ID": "the same", "Endpoint.ID": "the same",
	"Network.Tenant": "that of the subscription", "Service.Tenant": "the same", "Endpoint.Tenant": "the same",
	"Network.Facet": "kept, or made by the API", "Service.Facet": "the same", "Endpoint.Facet": "the same",
	"Network.Origin": "objects of a Corefile aren't written by the API", "Service.Origin": "the same", "Endpoint.Origin": "the same",
	"Network.Pools":       "of networks of a Corefile",
	"Network.ByListener":  "the same",
	"Service.Alias":       "made once",
	"Service.Reach":       "what the tenant was granted at the last write",
	"Endpoint.Zones":      "of zone groups, and kept",
	"Endpoint.Connection": "what was decided is no wish",
}

// randomService makes one that may be written, with each of its fields now and then.
func randomService(r *rand.Rand) link.Service {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	some := func(n int) bool { return r.IntN(n) == 0 }
	v := link.Service{ID: svcC, Port: uint16(number(r, 443, 1433, 8080, 587)), Protocol: link.Protocol(pick("", "", "udp")), Pin: link.PinAddress}
	addrs, names := r.IntN(4), r.IntN(3)
	if addrs+names == 0 {
		addrs = 1
	}
	for i := range addrs {
		v.Targets = append(v.Targets, link.Target{Addr: netip.MustParseAddrPort(fmt.Sprintf(pick("203.0.113.%d:%d", "[2001:db8::%d]:%d"), i+4, 443+r.IntN(3)))})
	}
	for _, t := range v.Targets {
		if some(2) {
			put(&v.Weights, t.Addr, number(r, 0, 2, 3, link.MaxWeight))
		}
	}
	for i := range names {
		n := link.NamePort{Name: link.Name(fmt.Sprintf("db%d.contoso.example", i)), Port: uint16(443 + r.IntN(3))}
		if v.TargetNames = append(v.TargetNames, n); some(2) {
			put(&v.NameWeights, n, number(r, 0, 2, 3, link.MaxWeight))
		}
		if len(v.Within) < 2 && some(2) {
			v.Within = append(v.Within, netip.MustParsePrefix(pick("203.0.113.0/24", "2001:db8::/32")))
		}
	}
	if some(2) {
		v.Sites = link.Sites{{Site: pick("paris", "lyon"), Prefix: netip.MustParsePrefix("203.0.113.0/24")}, {Site: "paris", Prefix: netip.MustParsePrefix("2001:db8::/32")}}
	}
	v.Balance = link.Balance(pick("", string(link.LeastConnections), string(link.SourceHash)))
	if some(2) {
		v.MaxPerTarget, v.MaxWaiting = 1+r.IntN(9), r.IntN(5)
	}
	for _, n := range []string{"db.contoso.example", "*.apps.contoso.example"} {
		if some(2) {
			v.Names = append(v.Names, link.ResourceName{Public: link.Name(n)})
		}
	}
	if v.Protocol == link.TCP {
		v.Probe, _ = link.ParseProbe(pick("tcp", "tls", "tls probe.example", "http /up", "http /up?x=1 204"))
		if len(v.Names) > 0 && v.Port != 587 {
			v.Pin = link.Pins()[r.IntN(len(link.Pins()))]
			v.ECHOuter = v.Pin != link.PinAddress && some(2)
		}
	}
	if v.Protocol == link.TCP && v.Pin != link.PinMySQL && some(2) {
		if v.Warm = 1 + r.IntN(link.MaxWarm); some(2) {
			v.WarmAge = link.MinWarmAge + time.Duration(r.Int64N(int64(link.MaxWarmAge-link.MinWarmAge)))
		}
	}
	v.ProxyProtocol = link.ProxyProtocol(pick("off", "v2", "azure", "aws", "gcp"))
	if _, least, most := v.Protocol.IdleBounds(); some(2) {
		v.IdleTimeout = least + time.Duration(r.Int64N(int64(most-least))).Round(time.Second)
	}
	for _, list := range []*[]link.Party{&v.Visible, &v.Reject} {
		for _, p := range []link.Party{link.Anyone, "tenant/fabrikam", "subscription/f1", "f1/rg/net"} {
			if some(3) {
				*list = append(*list, p)
			}
		}
	}
	for _, p := range v.Visible {
		if some(2) {
			v.AutoApprove = append(v.AutoApprove, p)
		}
	}
	for _, a := range []string{"203.0.113.101", "2001:db8::101"} {
		if some(3) {
			v.NAT = append(v.NAT, netip.MustParseAddr(a))
		}
	}
	if some(2) {
		v.MaxConnections = 1 + r.IntN(20)
		v.MaxPerConsumer = r.IntN(5)
	}
	v.Strict, v.FallbackPublic = some(2), some(2)
	return v
}

func number(r *rand.Rand, list ...int) int { return list[r.IntN(len(list))] }

// filled notes which fields of an object, those within embedded structs by themselves, aren't zero.
func filled(prefix string, v reflect.Value, into map[string]bool) {
	for i := range v.NumField() {
		f, name := v.Type().Field(i), prefix+"."+v.Type().Field(i).Name
		if _, out := notOfManifests[name]; out {
			continue
		}
		if f.Anonymous {
			filled(prefix, v.Field(i), into)
			continue
		}
		into[name] = into[name] || !v.Field(i).IsZero()
	}
}

// strip makes the fields that manifests don't carry zero.
func strip(prefix string, v reflect.Value) {
	for i := range v.NumField() {
		if _, out := notOfManifests[prefix+"."+v.Type().Field(i).Name]; out {
			v.Field(i).SetZero()
		}
	}
}

// TestRoundTrip: what Export says of a group makes the same objects again, in every field, and changes nothing where it is
// applied to what it was exported from.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 27))
		w := newWorld(t)
		o := op(Owner, subC, subF)
		n := network(netF, "1")
		if r.IntN(2) == 0 {
			n.Subnets = append(n.Subnets, link.Subnet{Name: "second", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("10.1.3.0/24")}})
			n.Egress = []string{"tenant/contoso", "*"}
			n.Sites = link.Sites{{Site: "paris", Prefix: netip.MustParsePrefix("10.1.2.0/24")}, {Site: "lyon", Prefix: netip.MustParsePrefix("10.1.3.0/24")}}
		}
		w.ok(w.putNetworkAs(o, n))
		v := randomService(r)
		if _, err := w.putServiceAs(o, v); err != nil {
			t.Fatalf("seed %d: %+v: %v", seed, v, err)
		}
		w.ok(w.putServiceAs(o, service(other)))
		ask := Ask{Endpoint: link.Endpoint{Network: netF, Subnet: "pe", Service: other}, Manual: true, Message: "please"}
		if r.IntN(2) == 0 {
			ask.Endpoint.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.7.0/24")}
		}
		w.ok(w.ask(o, endF, ask))
		before := w.state()
		was := [3]any{*before.Network(netF), *before.Service(svcC), *before.Endpoint(endF)}
		filled("Network", reflect.ValueOf(was[0]), seen)
		filled("Service", reflect.ValueOf(was[1]), seen)
		filled("Endpoint", reflect.ValueOf(was[2]), seen)

		manifests := map[string]Manifest{}
		for _, sub := range []string{subC, subF} {
			m, err := w.Export(o.Caller, sub, "rg")
			if err != nil {
				t.Fatal(err)
			}
			manifests[sub] = overTheWire(t, m)
			if p, err := w.Plan(t.Context(), o, manifests[sub]); err != nil || len(p.Changes) > 0 {
				t.Fatalf("seed %d: applied to itself: %+v, %v", seed, p.Changes, err)
			}
		}
		fresh := newWorld(t)
		for _, sub := range []string{subC, subF} { // services first: endpoints ask for them
			if _, err := fresh.Apply(t.Context(), o, manifests[sub]); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		s := fresh.state()
		now := [3]any{*s.Network(netF), *s.Service(svcC), *s.Endpoint(endF)}
		for i, kind := range []string{"Network", "Service", "Endpoint"} {
			a, b := reflect.New(reflect.TypeOf(was[i])).Elem(), reflect.New(reflect.TypeOf(now[i])).Elem()
			a.Set(reflect.ValueOf(was[i]))
			b.Set(reflect.ValueOf(now[i]))
			strip(kind, a)
			strip(kind, b)
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				t.Fatalf("seed %d: it was\n%+v\nand is\n%+v", seed, a.Interface(), b.Interface())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if !seen[name] {
			t.Errorf("%s never was anything but zero: have the test make it, or say in notOfManifests why a manifest doesn't carry it", name)
		}
	}
}

// overTheWire returns a manifest as a client that reads and sends it has it.
func overTheWire(t *testing.T, m Manifest) (back Manifest) {
	t.Helper()
	text, err := json.Marshal(m)
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// TestManifestSpread: what a manifest says of targets and protocols, what is meant where it says nothing, and what is refused.
func TestManifestSpread(t *testing.T) {
	waiting := func(n int) *int { return &n }
	at := netip.MustParseAddrPort("203.0.113.9:443")
	for name, tt := range map[string]struct {
		edit func(*ManifestService)
		want func(*link.Service) bool
		bad  bool
	}{
		"nothing": {func(*ManifestService) {}, func(v *link.Service) bool {
			return reflect.DeepEqual(v.Spread, link.Spread{}) && v.Protocol == link.TCP
		}, false},
		"the usual words": {func(m *ManifestService) { m.Protocol, m.Balance, m.Probe = "TCP", "round-robin", "tcp" }, func(v *link.Service) bool {
			return reflect.DeepEqual(v.Spread, link.Spread{}) && v.Protocol == link.TCP
		}, false},
		"weight 1":          {func(m *ManifestService) { m.Weights = map[string]int{"203.0.113.9:443": 1} }, func(v *link.Service) bool { return v.Weights == nil }, false},
		"weight 0":          {func(m *ManifestService) { m.Weights = map[string]int{"[::ffff:203.0.113.9]:443": 0} }, func(v *link.Service) bool { return v.Drained(at) }, false},
		"bound alone":       {func(m *ManifestService) { m.MaxPerTarget = 7 }, func(v *link.Service) bool { return v.MaxPerTarget == 7 && v.MaxWaiting == 7 }, false},
		"nobody waits":      {func(m *ManifestService) { m.MaxPerTarget, m.MaxWaiting = 7, waiting(0) }, func(v *link.Service) bool { return v.MaxPerTarget == 7 && v.MaxWaiting == 0 }, false},
		"udp":               {func(m *ManifestService) { m.Protocol, m.Names = "udp", []string{"db.contoso.example"} }, func(v *link.Service) bool { return v.Protocol == link.UDP && v.Pin == link.PinAddress }, false},
		"udp, idle 5 s":     {func(m *ManifestService) { m.Protocol, m.IdleTimeout = "udp", "5s" }, func(v *link.Service) bool { return v.Idle() == 5*time.Second }, false},
		"tcp, idle 5 s":     {func(m *ManifestService) { m.IdleTimeout = "5s" }, nil, true},
		"udp, pinned":       {func(m *ManifestService) { m.Protocol, m.Pin, m.Names = "udp", "tls", []string{"db.contoso.example"} }, nil, true},
		"udp, PROXY v1":     {func(m *ManifestService) { m.Protocol, m.ProxyProtocol = "udp", "v1" }, nil, true},
		"udp, probed":       {func(m *ManifestService) { m.Protocol, m.Probe = "udp", "tls" }, nil, true},
		"sctp":              {func(m *ManifestService) { m.Protocol = "sctp" }, nil, true},
		"another balance":   {func(m *ManifestService) { m.Balance = "random" }, nil, true},
		"another probe":     {func(m *ManifestService) { m.Probe = "icmp" }, nil, true},
		"weight of another": {func(m *ManifestService) { m.Weights = map[string]int{"203.0.113.8:443": 2} }, nil, true},
		"weight of none":    {func(m *ManifestService) { m.Weights = map[string]int{"db": 2} }, nil, true},
		"weight twice": {func(m *ManifestService) {
			m.Weights = map[string]int{"203.0.113.9:443": 2, "[::ffff:203.0.113.9]:443": 3}
		}, nil, true},
		"a name too": {func(m *ManifestService) { m.Targets = []string{"DB.contoso.example.:443", "203.0.113.9:443"} }, func(v *link.Service) bool {
			return slices.Equal(v.TargetNames, []link.NamePort{{Name: "db.contoso.example", Port: 443}}) && slices.Equal(v.Targets, []link.Target{{Addr: at}})
		}, false},
		"a name alone": {func(m *ManifestService) {
			m.Targets, m.Weights, m.Within = []string{"db.contoso.example:443"}, map[string]int{"db.contoso.example:443": 0}, []string{"203.0.113.0/24"}
		}, func(v *link.Service) bool {
			return len(v.Targets) == 0 && v.NameWeight(v.TargetNames[0]) == 0 && slices.Equal(v.Within, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")})
		}, false},
		"name of weight 1": {func(m *ManifestService) {
			m.Targets, m.Weights = []string{"db.contoso.example:443"}, map[string]int{"db.contoso.example:443": 1}
		}, func(v *link.Service) bool { return v.NameWeights == nil }, false},
		"weight of a name twice": {func(m *ManifestService) {
			m.Targets, m.Weights = []string{"db.contoso.example:443"}, map[string]int{"db.contoso.example:443": 2, "db.contoso.example.:443": 2}
		}, nil, true},
		"weight of another name": {func(m *ManifestService) { m.Weights = map[string]int{"db.contoso.example:443": 2} }, nil, true},
		"weight of a name's other port": {func(m *ManifestService) {
			m.Targets, m.Weights = []string{"db.contoso.example:443"}, map[string]int{"db.contoso.example:444": 2}
		}, nil, true},
		"a name too heavy": {func(m *ManifestService) {
			m.Targets, m.Weights = []string{"db.contoso.example:443"}, map[string]int{"db.contoso.example:443": link.MaxWeight + 1}
		}, nil, true},
		"a name twice":          {func(m *ManifestService) { m.Targets = []string{"db.contoso.example:443", "DB.contoso.example:443"} }, nil, true},
		"a name without port":   {func(m *ManifestService) { m.Targets = []string{"db.contoso.example"} }, nil, true},
		"a name with port 0":    {func(m *ManifestService) { m.Targets = []string{"db.contoso.example:0"} }, nil, true},
		"an address miswritten": {func(m *ManifestService) { m.Targets = []string{"10.20.0.256:443"} }, nil, true},
		"a pattern":             {func(m *ManifestService) { m.Targets = []string{"*.contoso.example:443"} }, nil, true},
		"within without names":  {func(m *ManifestService) { m.Within = []string{"203.0.113.0/24"} }, nil, true},
		"within no prefix": {func(m *ManifestService) {
			m.Targets, m.Within = []string{"db.contoso.example:443"}, []string{"203.0.113.0"}
		}, nil, true},
		"within of host bits": {func(m *ManifestService) {
			m.Targets, m.Within = []string{"db.contoso.example:443"}, []string{"203.0.113.9/24"}
		}, nil, true},
		"too heavy":         {func(m *ManifestService) { m.Weights = map[string]int{"203.0.113.9:443": link.MaxWeight + 1} }, nil, true},
		"warm":              {func(m *ManifestService) { m.Warm, m.WarmAge = 4, "20s" }, func(v *link.Service) bool { return v.Warm == 4 && v.KeptWarm() == 20*time.Second }, false},
		"warm without age":  {func(m *ManifestService) { m.Warm = 4 }, func(v *link.Service) bool { return v.Warm == 4 && v.KeptWarm() == link.DefaultWarmAge }, false},
		"warm, no age":      {func(m *ManifestService) { m.Warm, m.WarmAge = 4, "soon" }, nil, true},
		"warm, aged 0":      {func(m *ManifestService) { m.Warm, m.WarmAge = 4, "0s" }, nil, true},
		"age of none":       {func(m *ManifestService) { m.WarmAge = "20s" }, nil, true},
		"too warm":          {func(m *ManifestService) { m.Warm = link.MaxWarm + 1 }, nil, true},
		"udp, warm":         {func(m *ManifestService) { m.Protocol, m.Warm = "udp", 1 }, nil, true},
		"mysql, warm":       {func(m *ManifestService) { m.Names, m.Pin, m.Warm = []string{"db.contoso.example"}, "mysql", 1 }, nil, true},
		"waits for nothing": {func(m *ManifestService) { m.MaxWaiting = waiting(3) }, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := ManifestService{Name: "svc", Port: 443, Targets: []string{"203.0.113.9:443"}}
			tt.edit(&m)
			_, err := w.Apply(t.Context(), op(Owner, subC), Manifest{Subscription: subC, Group: "rg", Services: []ManifestService{m}})
			switch v := w.state().Service(svcC); {
			case tt.bad && (err == nil || v != nil):
				t.Errorf("it was made: %+v", v)
			case !tt.bad && (err != nil || !tt.want(v)):
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}
