package link

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// verify checks everything that a snapshot computes against loops over its objects.
func verify(t testing.TB, s *Snapshot) {
	t.Helper()
	verifyNetworks(t, s)
	verifyPrivate(t, s)
	verifyCounters(t, s)
	endpoints := slices.Collect(s.Endpoints())
	type family struct {
		protocol Protocol
		v6       bool
	}
	ports, loopback := map[family]map[uint16]bool{{TCP, false}: {}, {TCP, true}: {}, {UDP, false}: {}, {UDP, true}: {}}, map[Protocol]map[netip.AddrPort]bool{TCP: {}, UDP: {}}
	owners, exists, approved := map[string][]ID{}, map[string]int{}, map[ID]int{}
	for _, e := range endpoints {
		if s.EndpointAt(e.Address) != e {
			t.Errorf("endpoint %s isn't at its address %s", e.ID, e.Address)
		}
		n := s.Network(e.Network)
		if n == nil || n.fits(e) != nil {
			t.Errorf("endpoint %s: address %s is not in the pools of %s", e.ID, e.Address, e.Network)
		}
		if id := e.Connection.LinkID; (id == 0) != (e.Connection.State == Disconnected) || id != 0 && s.EndpointOf(id) != e {
			t.Errorf("endpoint %s: state %s, link ID %s", e.ID, e.Connection.State, id)
		}
		if e.Connection.State == Approved {
			approved[e.Service]++
		}
		v := s.Service(e.Service)
		if e.Connection.State == Disconnected {
			continue
		}
		if v == nil {
			t.Errorf("endpoint %s: no service and state %s", e.ID, e.Connection.State)
			continue
		}
		if e.Address.IsLoopback() {
			loopback[v.Protocol][netip.AddrPortFrom(e.Address, v.Port)] = true
		} else {
			ports[family{v.Protocol, e.Address.Is6()}][v.Port] = true
		}
		for _, rn := range v.Names {
			for _, name := range []Name{rn.Public, rn.Private} {
				if name != "" {
					key := string(e.Network) + " " + string(name)
					owners[key] = append(owners[key], e.ID)
				}
			}
			if e.Connection.Live() && rn.Private != "" {
				for name := rn.Private; name != rn.Zone.Parent(); name = name.Parent() {
					exists[string(e.Network)+" "+string(name)]++
				}
			}
		}
	}
	for v := range s.Services() {
		if s.Approved(v.ID) != approved[v.ID] {
			t.Errorf("service %s: %d approved, want %d", v.ID, s.Approved(v.ID), approved[v.ID])
		}
	}
	for key, want := range owners {
		network, name, _ := strings.Cut(key, " ")
		owner, private, ok := s.Owner(ID(network), []byte(name))
		if !ok {
			t.Errorf("name %s in %s: no owner", name, network)
			continue
		}
		var got []ID
		for e := range s.EndpointsFor(ID(network), owner.Service) {
			if e.Connection.State == Disconnected {
				continue
			}
			got = append(got, e.ID)
			if s.Endpoint(e.ID) != e || e.Service != owner.Service {
				t.Errorf("name %s: endpoint %s is not the one of now", name, e.ID)
			}
		}
		if owner.endpoints != len(want) {
			t.Errorf("name %s in %s counts %d endpoints, want %d", name, network, owner.endpoints, len(want))
		}
		if !slices.Equal(got, want) || private != (Name(name) == owner.Name.Private) {
			t.Errorf("name %s in %s belongs to %v, want %v", name, network, got, want)
		}
	}
	count := 0
	for _, o := range s.owners.all(nil) {
		_ = o
		count++
	}
	if count != len(owners) {
		t.Errorf("%d names have owners, want %d", count, len(owners))
	}
	count = 0
	for k, n := range s.exists.all(nil) {
		count++
		if key := strings.Replace(k, "\x00", " ", 1); exists[key] != n {
			t.Errorf("exists %q = %d, want %d", key, n, exists[key])
		}
	}
	if count != len(exists) {
		t.Errorf("%d names exist, want %d", count, len(exists))
	}
	for of, all := range ports {
		if got, want := slices.Collect(s.Ports(of.protocol, of.v6)), slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
			t.Errorf("ports of %v (v6 %v) %v, want %v", of.protocol, of.v6, got, want)
		}
	}
	for p, all := range loopback {
		if got := slices.Collect(s.Loopback(p)); len(got) != len(all) || slices.ContainsFunc(got, func(a netip.AddrPort) bool { return !all[a] }) {
			t.Errorf("loopback of %v %v, want %v", p, got, all)
		}
	}
}

// verifyCounters checks the counters against those of a snapshot that is loaded from the same objects.
func verifyCounters(t testing.TB, s *Snapshot) {
	t.Helper()
	fresh, err := Load(s.Revision(), s.Objects())
	if err != nil {
		t.Errorf("the objects can't be loaded: %v", err)
		return
	}
	for name, pair := range map[string][2]*sorted[int]{
		"tallies": {&s.tallies, &fresh.tallies}, "claims": {&s.claims, &fresh.claims}, "targeted": {&s.targeted, &fresh.targeted},
		"backends": {&s.backends, &fresh.backends}, "suffixes": {&s.suffixes, &fresh.suffixes},
	} {
		if got, want := maps.Collect(text(pair[0])), maps.Collect(text(pair[1])); !maps.Equal(got, want) {
			t.Errorf("%s are %v, want %v", name, got, want)
		}
	}
	for v := range s.Services() {
		for _, n := range v.Names {
			for _, name := range []Name{n.Private, n.Public} {
				if pattern := strings.HasPrefix(string(name), "*"); name != "" && (pattern || name == n.Private) && !s.IsOther([]byte(strings.Replace(string(name), "*", "x", 1))) {
					t.Errorf("%s isn't found", name)
				}
			}
		}
		if s.ServiceByAlias(v.Alias) != v {
			t.Errorf("service %s isn't found by its alias", v.ID)
		}
		if id, ok := s.placed.get(placeKey(v.ID)); !ok || id != v.ID || s.placed.size() != s.services.size() {
			t.Errorf("service %s isn't found by its place, or another is", v.ID)
		}
	}
}

func text(r *sorted[int]) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for k, n := range r.all(nil) {
			if !yield(k, n) {
				return
			}
		}
	}
}

// verifyNetworks checks the tables of prefixes against loops over the networks.
func verifyNetworks(t testing.TB, s *Snapshot) {
	t.Helper()
	clients, pools := 0, 0
	for n := range s.Networks() {
		for _, p := range n.Prefixes {
			if n.ByListener {
				continue
			}
			clients++
			if got, ok := s.clients.Get(p); !ok || got != n {
				t.Errorf("prefix %s is of %v, want network %s", p, got, n.ID)
			}
		}
		for _, p := range n.Pools {
			pools++
			if got, pool := s.PoolOf(p.Addr()); got != n || pool != p {
				t.Errorf("pool %s is %s of %v, want network %s", p, pool, got, n.ID)
			}
		}
	}
	if s.clients.Size() != clients || s.pools.Size() != pools {
		t.Errorf("%d prefixes and %d pools, want %d and %d", s.clients.Size(), s.pools.Size(), clients, pools)
	}
}

// same reports whether two snapshots hold the same objects.
func same(a, b *Snapshot) bool {
	return reflect.DeepEqual(slices.Collect(a.Objects()), slices.Collect(b.Objects()))
}

// TestRandomChanges applies random changes, right and wrong ones, and after each compares the
// snapshot with the model, with one loaded from its objects, and with its deltas played on the one before.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s, now := Empty(), noon
			retiredAt := map[LinkID]time.Time{}
			for step := range 300 {
				now = now.Add(time.Duration(r.IntN(12)) * time.Hour)
				before := slices.Collect(s.Objects())
				next, deltas, err := s.Apply(now, randomChange(r, s))
				if !reflect.DeepEqual(before, slices.Collect(s.Objects())) {
					t.Fatalf("step %d: a change altered the snapshot before it", step)
				}
				if err != nil {
					if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrStale) && !errors.Is(err, ErrExhausted) {
						t.Fatalf("step %d: %v wraps none of the errors of the package", step, err)
					}
					continue
				}
				verify(t, next)
				played := map[objectKey]Object{}
				for _, o := range before {
					played[objectKey{o.Kind(), o.Key()}] = o
				}
				for _, d := range deltas {
					k := objectKey{d.Kind, d.Key}
					if was := played[k]; was != nil && !reflect.DeepEqual(was, d.Old) || was == nil && d.Old != nil {
						t.Fatalf("step %d: delta of %v starts from %v, it was %v", step, k, d.Old, was)
					}
					if d.New == nil {
						delete(played, k)
					} else {
						played[k] = d.New
					}
				}
				loaded, err := Load(next.Revision(), maps.Values(played))
				if err != nil {
					t.Fatalf("step %d: load: %v", step, err)
				}
				if !same(loaded, next) {
					t.Fatalf("step %d: deltas lead elsewhere", step)
				}
				verify(t, loaded)
				for e := range next.Endpoints() {
					if since, ok := retiredAt[e.Connection.LinkID]; ok && now.Sub(since) < LinkIDRest {
						if old := s.Endpoint(e.ID); old == nil || old.Connection.LinkID != e.Connection.LinkID {
							t.Fatalf("step %d: link ID %s given out %s after it was retired", step, e.Connection.LinkID, now.Sub(since))
						}
					}
				}
				for e := range s.Endpoints() {
					if id := e.Connection.LinkID; id != 0 && next.EndpointOf(id) == nil {
						retiredAt[id] = now
					}
				}
				s = next
				if t.Failed() {
					t.Fatalf("step %d", step)
				}
			}
			if _, ok := first(s.Endpoints()); !ok {
				t.Error("the walk ended without an endpoint: it tests little")
			}
		})
	}
}

func randomChange(r *rand.Rand, s *Snapshot) Change {
	nid, sid, eid := ID(fmt.Sprint("n", r.IntN(4))), ID(fmt.Sprint("s", r.IntN(4))), ID(fmt.Sprint("e", r.IntN(12)))
	var linkID LinkID
	if e := s.Endpoint(eid); e != nil && r.IntN(10) > 0 {
		linkID = e.Connection.LinkID
	}
	randomNetwork := func(id ID) Network {
		i := r.IntN(5)
		n := network(id, fmt.Sprintf("10.%d.0.0/16", i), fmt.Sprintf("10.10%d.0.0/29", i))
		if r.IntN(4) == 0 {
			n.Pools = append(n.Pools, netip.MustParsePrefix(fmt.Sprintf("127.0.%d.0/29", i)), netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/120", i)))
		}
		n.ByListener = r.IntN(6) == 0
		return n
	}
	randomService := func(id ID) Service {
		v := service(id, Name(fmt.Sprint("name", r.IntN(4))))
		for range r.IntN(3) {
			v.AutoApprove = append(v.AutoApprove, Party(fmt.Sprint("n", r.IntN(4))))
		}
		if r.IntN(4) == 0 {
			v.Reject = []Party{Party(fmt.Sprint("n", r.IntN(4)))}
		}
		v.Port = uint16(1433 + r.IntN(2))
		v.Protocol = []Protocol{TCP, UDP}[r.IntN(2)]
		v.MaxConnections = r.IntN(4)
		if r.IntN(3) == 0 {
			v.Names = append(v.Names, ResourceName{Public: Name(fmt.Sprintf("db%d.example.com", r.IntN(3)))})
		}
		return v
	}
	if r.IntN(4) == 0 {
		return randomPrivate(r)
	}
	switch r.IntN(16) {
	case 0, 1:
		return PutNetwork{randomNetwork(nid)}
	case 2:
		return DeleteNetwork{nid}
	case 3, 4:
		return PutService{Service: randomService(sid)}
	case 5:
		return DeleteService{sid, r.IntN(2) == 0}
	case 6, 7, 8:
		c := endpoint(eid, nid, sid)
		if r.IntN(5) == 0 {
			c.Endpoint.Allow = prefixes("10.9.0.0/16")
		}
		if r.IntN(3) == 0 {
			c.Endpoint.Zones = randomGroup(r)
		}
		return c
	case 9:
		return DeleteEndpoint{eid}
	case 10:
		return Decide{Endpoint: eid, LinkID: linkID, State: []State{Approved, Rejected}[r.IntN(2)], Decision: Decision{Actor: "bob"}}
	case 11:
		return Disconnect{eid, linkID, Decision{Actor: "bob"}}
	case 12:
		return AskAgain{Endpoint: eid}
	case 13:
		return Suspend{eid, linkID, Decision{Actor: "bob"}}
	case 14:
		return Resume{eid, linkID, Decision{Actor: "bob"}}
	}
	o := Origin{Declaration: "host", File: "Corefile", Line: 1 + r.IntN(9)}
	d := Declare{Declaration: "host"}
	for i := range 1 + r.IntN(2) {
		n := randomNetwork(ID(fmt.Sprint("d", i)))
		n.Prefixes, n.Pools = prefixes(fmt.Sprintf("10.2%d.0.0/16", r.IntN(3))), prefixes(fmt.Sprintf("10.3%d.0.0/28", r.IntN(3)))
		n.Origin = o
		v := randomService(ID(fmt.Sprint("ds", i)))
		v.AutoApprove, v.Reject, v.Origin = nil, nil, o
		if r.IntN(2) == 0 {
			v.AutoApprove = []Party{Party(n.ID)}
		}
		e := endpoint(ID(fmt.Sprint("de", i)), n.ID, v.ID)
		e.Endpoint.Origin = o
		d.Networks, d.Services = append(d.Networks, n), append(d.Services, v)
		d.Endpoints = append(d.Endpoints, DeclaredEndpoint{Endpoint: e.Endpoint})
	}
	r.Shuffle(len(d.Networks), func(i, j int) { d.Networks[i], d.Networks[j] = d.Networks[j], d.Networks[i] })
	r.Shuffle(len(d.Services), func(i, j int) { d.Services[i], d.Services[j] = d.Services[j], d.Services[i] })
	if r.IntN(3) == 0 {
		return Restore{Objects: slices.Collect(s.Objects()), Revision: uint64(r.IntN(2)) * uint64(r.IntN(1000))}
	}
	return d
}
