package privatelink

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// shelf keeps answers as the table of the fast path does, without sockets: what is in it is held against the plugins at each query.
type shelf struct {
	*fastServer
	kept map[string]shelved
	hits int
}

// shelved is an answer and what there is to know of it.
type shelved struct {
	wire []byte
	*fastpath.Answer
}

func newShelf(t testing.TB, s *link.Snapshot) *shelf {
	return &shelf{fastServer: startFast(t, s), kept: make(map[string]shelved)}
}

// serve has the plugins answer.
func (s *shelf) serve(t testing.TB, from, ask string, learn bool) ([]byte, *fastpath.Answer) {
	t.Helper()
	w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: from}}
	a := s.fast.Serve(w, question(ask), learn)
	if len(w.got) != 1 {
		t.Fatalf("%s from %s: %d answers", ask, from, len(w.got))
	}
	b, err := w.got[0].Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b, a
}

// holds reports whether an answer would be given in a moment.
func (a shelved) holds(m *fastpath.Moment) bool {
	return a.Answer != nil && (a.Epoch == m.Epoch || a.Still != nil && a.Still(m)) && (a.Holds == nil || a.Holds())
}

// given is the answer with the serial of a moment.
func (a shelved) given(t testing.TB, m *fastpath.Moment) []byte {
	t.Helper()
	r := new(dns.Msg)
	if err := r.Unpack(a.wire); err != nil {
		t.Fatal(err)
	}
	for _, rr := range slices.Concat(r.Answer, r.Ns) {
		if soa, ok := rr.(*dns.SOA); ok {
			if soa.Serial != a.Serial {
				t.Fatalf("serial %d in an answer of %d", soa.Serial, a.Serial)
			}
			soa.Serial = m.Serial
		}
	}
	b, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask asks "NAME TYPE", and reports whether the answer was there. It is that of the plugins in either case.
func (s *shelf) ask(t testing.TB, from, ask string) (answer []byte, hit bool) {
	t.Helper()
	want, _ := s.serve(t, from, ask, false)
	m := s.fast.Now()
	if m == nil {
		return want, false
	}
	view, ok := s.fast.View(m, netip.MustParseAddr(from))
	if !ok {
		return want, false
	}
	key := view + " " + ask
	a := s.kept[key]
	if a.holds(m) {
		s.hits++
		if got := a.given(t, m); !bytes.Equal(got, want) {
			t.Fatalf("%s from %s (%q):\ngot\n%x\nwant\n%x", ask, from, view, got, want)
		}
		return want, true
	}
	wire, learnt := s.serve(t, from, ask, true)
	if !bytes.Equal(wire, want) {
		t.Fatalf("%s from %s: %x is answered for the table, %x else", ask, from, wire, want)
	}
	if s.kept[key] = (shelved{wire, learnt}); learnt == nil {
		delete(s.kept, key)
	} else if learnt.View != view {
		t.Fatalf("%s from %s: view %q, found by %q", ask, from, learnt.View, view)
	}
	return want, false
}

// change makes changes that have to succeed.
func (s *shelf) change(t testing.TB, changes ...link.Change) {
	t.Helper()
	s.now.Store(apply(t, s.now.Load(), changes...))
}

// observe changes what the data plane says.
func (s *shelf) observe(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// TestFastpathOthersStay: a change is in the next answer to what it is about, and leaves the answers to everything else in the table (D16,
// D22, D23). What is kept by hash may share a place with what has changed, so each kind has three tries with names of their own.
func TestFastpathOthersStay(t *testing.T) {
	t.Parallel()
	// In network n, service s has two names and two endpoints, of which the second is in lab.
	type names struct{ n, s, e, far string }
	id := func(s *shelf, e string) link.LinkID { return linkID(s.now.Load(), link.ID(e)) }
	for _, tc := range []struct {
		name   string
		ask    string // %s is the name of the service
		before func(t *testing.T, s *shelf, n names)
		change func(t *testing.T, s *shelf, n names)
	}{
		{name: "endpoint added", ask: "%s.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, to(link.ID(n.s), link.ID(n.n), "10.210.0.99"))
		}},
		{name: "endpoint removed", ask: "%s.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.DeleteEndpoint{ID: link.ID(n.e)})
		}},
		{name: "address changed", ask: "%s.privatelink.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.DeleteEndpoint{ID: link.ID(n.e)}, to(link.ID(n.s), link.ID(n.n), "10.210.0.98"))
		}},
		{name: "rejected (D16)", ask: "%s.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.Decide{Endpoint: link.ID(n.e), LinkID: id(s, n.e), State: link.Rejected})
		}},
		{name: "suspended (D16)", ask: "%s.database.windows.net AAAA", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.Suspend{Endpoint: link.ID(n.e), LinkID: id(s, n.e)})
		}},
		{name: "resumed", ask: "%s.privatelink.database.windows.net TXT", before: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.Suspend{Endpoint: link.ID(n.e), LinkID: id(s, n.e)})
		}, change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.Resume{Endpoint: link.ID(n.e), LinkID: id(s, n.e)})
		}},
		{name: "service renamed", ask: "%s.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.PutService{Service: service(link.ID(n.s), link.Name("new"+n.s+".database.windows.net"))})
		}},
		{name: "name appears", ask: "new%s.privatelink.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.PutService{Service: service(link.ID(n.s), link.Name("new"+n.s+".database.windows.net"))})
		}},
		{name: "below a name appears", ask: "b%s.privatelink.servicebus.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.PutService{Service: service(link.ID("bus"+n.s), link.Name("a.b"+n.s+".servicebus.windows.net"))}, to(link.ID("bus"+n.s), link.ID(n.n), "10.210.0.97"))
		}},
		{name: "below a name goes", ask: "b%s.privatelink.servicebus.windows.net A", before: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.PutService{Service: service(link.ID("bus"+n.s), link.Name("a.b"+n.s+".servicebus.windows.net"))}, to(link.ID("bus"+n.s), link.ID(n.n), "10.210.0.97"))
		}, change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.DeleteEndpoint{ID: link.ID("bus" + n.s + "-10.210.0.97")})
		}},
		{name: "pattern appears", ask: "www.%s.example A", before: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.PutService{Service: service(link.ID("p"+n.s), link.Name("www."+n.s+".example"))}, to(link.ID("p"+n.s), link.ID(n.n), "10.210.0.96"))
		}, change: func(t *testing.T, s *shelf, n names) {
			s.change(t, link.PutService{Service: service(link.ID("p"+n.s), link.Name("*."+n.s+".example"))}, link.DeleteEndpoint{ID: link.ID("p" + n.s + "-10.210.0.96")})
		}},
		{name: "public address while all are down", ask: "%s.database.windows.net A", before: func(t *testing.T, s *shelf, n names) {
			s.observe(func() { s.down[link.ID(n.s)] = true })
		}, change: func(t *testing.T, s *shelf, n names) {
			v := service(link.ID(n.s), link.Name(n.s+".database.windows.net"))
			v.FallbackPublic = true
			s.change(t, link.PutService{Service: v})
		}},
		{name: "target withdrawn (D22)", ask: "%s.database.windows.net A", change: func(t *testing.T, s *shelf, n names) {
			s.observe(func() { s.unproven[link.ID(n.s)] = true })
		}},
		{name: "prefix of another network", ask: "", change: func(t *testing.T, s *shelf, n names) {
			far := *s.now.Load().Network(link.ID(n.far))
			far.Prefixes = prefixes("127.5.0.0/16", "127.6.0.0/16")
			s.change(t, link.PutNetwork{Network: far})
		}},
		{name: "prefix of its network", ask: "", change: func(t *testing.T, s *shelf, n names) {
			own := *s.now.Load().Network(link.ID(n.n))
			own.Prefixes = prefixes("127.4.0.0/16", "127.7.0.0/16")
			s.change(t, link.PutNetwork{Network: own})
		}},
		{name: "first zone linked", ask: "www.%s.example A", change: func(t *testing.T, s *shelf, n names) {
			z := link.ID("sub/rg/" + n.s + ".example")
			s.change(t, zone(z, link.ID(n.n)), record(z, "A", "www", "10.20.0.7"))
		}},
		{name: "last zone gone", ask: "www.%s.example A", before: func(t *testing.T, s *shelf, n names) {
			s.change(t, zone(link.ID("sub/rg/"+n.s+".example"), link.ID(n.n)))
		}, change: func(t *testing.T, s *shelf, n names) { s.change(t, zone(link.ID("sub/rg/"+n.s+".example"))) }},
		{name: "record set", ask: "www.%s.example A", before: func(t *testing.T, s *shelf, n names) {
			z := link.ID("sub/rg/" + n.s + ".example")
			s.change(t, zone(z, link.ID(n.n)), record(z, "A", "*", "10.20.0.7"))
		}, change: func(t *testing.T, s *shelf, n names) {
			s.change(t, record(link.ID("sub/rg/"+n.s+".example"), "A", "www", "10.20.0.8"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for try := range 3 {
				n := names{n: fmt.Sprint("near", try), s: fmt.Sprint("svc", try), e: fmt.Sprintf("svc%d-10.210.0.10", try), far: fmt.Sprint("far", try)}
				changes := []link.Change{
					link.PutNetwork{Network: link.Network{ID: link.ID(n.n), Prefixes: prefixes("127.4.0.0/16"), Pools: prefixes("10.210.0.0/24")}},
					link.PutNetwork{Network: link.Network{ID: link.ID(n.far), Prefixes: prefixes("127.5.0.0/16"), Pools: prefixes("10.211.0.0/24")}},
					link.PutService{Service: service(link.ID(n.s), link.Name(n.s+".database.windows.net"))}, to(link.ID(n.s), link.ID(n.n), "10.210.0.10"),
				}
				var others []string
				for i := range 12 {
					other := fmt.Sprintf("other%d%s", i, n.s)
					changes = append(changes, link.PutService{Service: service(link.ID(other), link.Name(other+".database.windows.net"))},
						to(link.ID(other), link.ID(n.n), fmt.Sprint("10.210.0.", 20+i)), to(link.ID(other), link.ID(n.far), fmt.Sprint("10.211.0.", 20+i)))
					others = append(others, other+".database.windows.net A", other+".privatelink.database.windows.net HTTPS", fmt.Sprint("nobody", i, ".privatelink.database.windows.net A"))
				}
				s := newShelf(t, apply(t, link.Empty(), changes...))
				if tc.before != nil {
					tc.before(t, s, n)
				}
				clients := []string{"127.4.0.9", "127.5.0.9"}
				all := func() (hits int) {
					for _, ask := range others {
						for _, from := range clients {
							if _, hit := s.ask(t, from, ask); hit {
								hits++
							}
						}
					}
					return hits
				}
				var ask string
				var old []byte
				if tc.ask != "" {
					ask = fmt.Sprintf(tc.ask, n.s)
					old, _ = s.ask(t, clients[0], ask)
				}
				all()
				if hits := all(); hits != len(others)*len(clients) {
					t.Fatalf("%d of %d answers are kept", hits, len(others)*len(clients))
				}
				if tc.change(t, s, n); ask != "" {
					if now, hit := s.ask(t, clients[0], ask); hit || bytes.Equal(now[12:], old[12:]) {
						t.Fatalf("from the table %v: the answer to %s is still %x", hit, ask, now)
					}
				}
				if hits := all(); hits == len(others)*len(clients) {
					return
				} else if try == 2 {
					t.Fatalf("%d of %d answers to others are left", hits, len(others)*len(clients))
				}
			}
		})
	}
}

// TestFastpathRandomChanges: whatever changes, in whatever order, no answer from the table differs from that of the plugins.
func TestFastpathRandomChanges(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	w := &changingWorld{Rand: r, shelf: newShelf(t, loops(t))}
	asked, step := 0, 0
	defer func() {
		if t.Failed() {
			t.Logf("seed %d, step %d", seed, step)
		}
	}()
	var questions [48][2]string // that are asked again and again: by whom, and what
	for end := time.Now().Add(8 * time.Second); step < 3000 && time.Now().Before(end); step++ {
		w.step(t)
		for range 10 {
			one := &questions[r.IntN(len(questions))]
			if one[0] == "" || r.IntN(8) == 0 {
				*one = [2]string{oneOf(r, corpLoop, corpLoop, "127.1.1.9", labLoop, otherLoop, "127.4.0.9"), w.question()}
			}
			w.ask(t, one[0], one[1])
			asked++
		}
	}
	if w.hits < asked/50 {
		t.Errorf("seed %d: of %d answers %d come from the table: that tests little", seed, asked, w.hits)
	}
	t.Logf("%d of %d answers come from the table, at revision %d", w.hits, asked, w.now.Load().Revision())
}

// changingWorld is a state that changes in all ways.
type changingWorld struct {
	*rand.Rand
	*shelf
}

func oneOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// The private zones of a changing world.
var randomZones = []link.ID{corpZone, hubZone, "sub/rg/privatelink.azurewebsites.net", "sub/rg/b.corp.example"}

// serviceName is one of a random service.
func (w *changingWorld) serviceName() link.Name {
	return oneOf(w.Rand, link.Name(fmt.Sprintf("n%d.database.windows.net", w.IntN(6))), link.Name(fmt.Sprintf("a.b%d.servicebus.windows.net", w.IntN(2))),
		"*.azurewebsites.net", "site.azurewebsites.net", "www.corp.example", "*.corp.example", "db.example.com", "kv.vault.azure.net")
}

// question is one about what is there, was, or may come.
func (w *changingWorld) question() string {
	name := string(w.serviceName())
	switch w.IntN(8) {
	case 0, 1:
		name = string(link.DefaultZones().Resource(link.Name(name)).Private)
	case 2:
		if _, above, ok := strings.Cut(string(link.DefaultZones().Resource(link.Name(name)).Private), "."); ok {
			name = oneOf(w.Rand, above, "nobody."+above)
		}
	case 3:
		name = oneOf(w.Rand, "corp.example", "www.corp.example", "x.corp.example", "a.b.corp.example", "b.corp.example", "alias.corp.example", "privatelink.database.windows.net")
	case 4:
		name = oneOf(w.Rand, "contoso.database.windows.net", "twice.database.windows.net", "fallback.database.windows.net", "unproven.privatelink.database.windows.net")
	case 5:
		name = fmt.Sprintf("%d.%d.20%d.10.in-addr.arpa", 20+w.IntN(8), 0, w.IntN(2))
	}
	if strings.HasPrefix(name, "*") {
		name = fmt.Sprint("w", w.IntN(3), name[1:])
	}
	if name == "" {
		name = "example.org"
	}
	return name + " " + oneOf(w.Rand, "A", "A", "A", "AAAA", "TXT", "SOA", "HTTPS", "PTR", "ANY", "CNAME", "NS", "NID")
}

// step changes something. What the state refuses stays as it was.
func (w *changingWorld) step(t testing.TB) {
	s := w.now.Load()
	try := func(changes ...link.Change) {
		if next, _, err := s.Apply(noon, changes...); err == nil {
			w.now.Store(next)
		}
	}
	svc := oneOf(w.Rand, link.ID(fmt.Sprint("r", w.IntN(6))), "sql", "twice", "fallback")
	var e *link.Endpoint
	for one := range s.Endpoints() {
		if e == nil || w.IntN(8) == 0 {
			e = one
		}
	}
	if e == nil {
		e = &link.Endpoint{ID: "none"}
	}
	c := e.Connection
	zoneID := oneOf(w.Rand, randomZones...)
	switch w.IntN(22) {
	case 0, 1, 2:
		v := service(svc, w.serviceName())
		if w.IntN(2) == 0 {
			v.Names = append(v.Names, link.DefaultZones().Resource(w.serviceName()))
		}
		v.FallbackPublic = w.IntN(3) == 0
		try(link.PutService{Service: v})
	case 3, 4, 5, 6:
		network, address := link.ID("corp"), fmt.Sprint("10.200.0.", 20+w.IntN(8)+100*w.IntN(2))
		if w.IntN(3) == 0 {
			network, address = "lab", fmt.Sprint("10.201.0.", 20+w.IntN(8))
		} else if w.IntN(5) == 0 {
			address = fmt.Sprint("fd00:200::", 20+w.IntN(8))
		}
		put := to(svc, network, address)
		if w.IntN(3) == 0 {
			put.Endpoint.Zones = &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "c", Zone: zoneID}}}
		}
		try(put)
	case 7, 8:
		try(link.DeleteEndpoint{ID: e.ID})
	case 9:
		try(link.Decide{Endpoint: e.ID, LinkID: c.LinkID, State: oneOf(w.Rand, link.Rejected, link.Approved)})
	case 10:
		try(link.Suspend{Endpoint: e.ID, LinkID: c.LinkID})
		try(link.Resume{Endpoint: e.ID, LinkID: c.LinkID})
	case 11:
		try(oneOf[link.Change](w.Rand, link.Disconnect{Endpoint: e.ID, LinkID: c.LinkID}, link.DeleteService{ID: svc, Force: true}))
	case 12:
		n := *s.Network("lab")
		n.Prefixes = oneOf(w.Rand, prefixes("127.2.0.0/16"), prefixes("127.2.0.0/16", "127.3.0.0/16"), prefixes("127.2.0.0/16", "127.1.1.0/24"))
		try(link.PutNetwork{Network: n})
	case 13:
		n := *s.Network("corp")
		n.Sites = oneOf(w.Rand, nil, sites(t, "paris=127.1.0.0/24", "paris=10.200.0.0/26", "lyon=127.1.1.0/24", "lyon=10.200.0.64/26"), sites(t, "paris=10.200.0.0/25", "lyon=127.1.0.0/16"))
		try(link.PutNetwork{Network: n})
	case 14:
		z := zone(zoneID)
		for _, n := range []link.ID{"corp", "lab"} {
			if w.IntN(2) == 0 {
				z.Zone.Links = append(z.Zone.Links, link.ZoneLink{Name: string(n), Network: n, Redirect: w.IntN(2) == 0})
			}
		}
		try(z)
	case 15, 16:
		kind := oneOf(w.Rand, "A", "A", "TXT", "CNAME", "SOA")
		name, data := oneOf(w.Rand, "@", "www", "*", "x", "n1", "alias", "a.b"), fmt.Sprint("10.20.0.", w.IntN(3))
		switch kind {
		case "TXT":
			data = fmt.Sprintf(`"%d"`, w.IntN(3))
		case "CNAME":
			data = oneOf(w.Rand, "www.corp.example.", "example.org.", "n1.database.windows.net.")
		case "SOA":
			name, data = "@", fmt.Sprintf("ns.example. nobody.example. 1 3600 1200 604800 %d", 5+w.IntN(10))
		}
		try(record(zoneID, kind, name, data))
	case 17:
		for one := range s.RecordSets(zoneID, "") {
			if w.IntN(2) == 0 {
				try(link.DeleteRecordSet{Zone: zoneID, Type: one.Type, Name: one.Name})
				break
			}
		}
	case 18:
		w.observe(func() {
			of := oneOf(w.Rand, w.down, w.unproven)
			id := oneOf(w.Rand, svc, svc+"@paris", svc+"@lyon")
			of[id] = !of[id]
		})
	case 19:
		w.turn.Add(1)
	case 20:
		w.observe(func() { w.stale[1] = oneOf(w.Rand, "", "", "", "", "", "late") })
	case 21:
		w.replace(t, s)
	}
}

// replace makes the whole state another: read from a store, written by another node, or restored.
func (w *changingWorld) replace(t testing.TB, s *link.Snapshot) {
	t.Helper()
	next, _, err := s.Apply(noon, link.PutService{Service: service("r0", w.serviceName())})
	if err != nil {
		return
	}
	if w.IntN(8) > 0 {
		next, err = s.Follow(next.Revision(), []link.Object{next.Service("r0")}, nil)
	} else {
		next, err = link.Load(next.Revision(), next.Objects())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.now.Store(next)
}
