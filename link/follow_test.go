package link

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// stored returns a copy of an object, as a store that decodes records hands it out.
func stored(o Object) Object {
	v := reflect.New(reflect.TypeOf(o).Elem())
	v.Elem().Set(reflect.ValueOf(o).Elem())
	return v.Interface().(Object)
}

// records returns what a commit wrote and what it deleted, in any order.
func records(r *rand.Rand, deltas []Delta) (put []Object, gone []Ref) {
	for _, d := range deltas {
		if d.New == nil {
			gone = append(gone, Ref{d.Kind, d.Key})
		} else {
			put = append(put, stored(d.New))
		}
	}
	r.Shuffle(len(put), func(i, j int) { put[i], put[j] = put[j], put[i] })
	r.Shuffle(len(gone), func(i, j int) { gone[i], gone[j] = gone[j], gone[i] })
	return put, gone
}

// TestFollowIsLoad walks two snapshots through random histories, one by changes and one by their records
// alone, and compares them, all that is computed included, after each step. Now and then a record is lost on
// the way: then Follow judges as Load does.
func TestFollowIsLoad(t *testing.T) {
	refused := 0
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			s, now := Empty(), noon
			follower, followed := Empty(), 0
			for step := range 300 {
				now = now.Add(time.Duration(r.IntN(12)) * time.Hour)
				next, deltas, err := s.Apply(now, randomChange(r, s))
				if err != nil {
					continue
				}
				put, gone := records(r, deltas)
				if len(put) > 0 && r.IntN(4) == 0 {
					lost := put[1:]
					got, err := follower.Follow(next.Revision(), lost, gone)
					want, wantErr := follower.followWhole(next.Revision(), lost, gone)
					if (err == nil) != (wantErr == nil) || err == nil && !same(got, want) {
						t.Fatalf("step %d: a record less: %v, Load says %v", step, err, wantErr)
					}
					if err != nil {
						refused++
					}
				}
				got, err := follower.Follow(next.Revision(), put, gone)
				if err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				if got.Revision() != next.Revision() || !same(got, next) {
					t.Fatalf("step %d: Follow leads elsewhere", step)
				}
				verify(t, got)
				if t.Failed() {
					t.Fatalf("step %d", step)
				}
				s, follower = next, got
				followed++
			}
			if followed < 50 {
				t.Errorf("%d commits followed: it tests little", followed)
			}
		})
	}
	if refused == 0 {
		t.Error("no lost record was missed: it tests little")
	}
}

// TestFollowSwaps: what two objects exchange in one commit, and all away in one.
func TestFollowSwaps(t *testing.T) {
	s, _, err := Empty().Apply(noon, PutNetwork{network("n0", "10.0.0.0/16", "10.100.0.0/29")}, PutNetwork{network("n1", "10.1.0.0/16", "10.101.0.0/29")},
		PutService{Service: service("s0", "name0")}, PutService{Service: service("s1", "name1")}, endpoint("e0", "n0", "s0"), endpoint("e1", "n0", "s1"))
	if err != nil {
		t.Fatal(err)
	}
	n0, n1, s0, s1 := *s.Network("n0"), *s.Network("n1"), *s.Service("s0"), *s.Service("s1")
	n0.Prefixes, n1.Prefixes = n1.Prefixes, n0.Prefixes
	s0.Names, s1.Names = s1.Names, s0.Names
	got, err := s.Follow(9, []Object{&n0, &s0, &s1, &n1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, got)
	if !slices.Equal(got.Network("n0").Prefixes, s.Network("n1").Prefixes) || !slices.Equal(got.Service("s0").Names, s.Service("s1").Names) {
		t.Error("they have not changed sides")
	}
	away, deltas, err := s.Apply(noon, Restore{})
	if err != nil {
		t.Fatal(err)
	}
	put, gone := records(rand.New(rand.NewPCG(1, 1)), deltas)
	if got, err := s.Follow(away.Revision(), put, gone); err != nil || !same(got, away) {
		t.Errorf("all away: %v", err)
	}
}

func TestFollowRefuses(t *testing.T) {
	s, _, err := Empty().Apply(noon, PutNetwork{network("n0", "10.0.0.0/16", "10.100.0.0/29")}, PutService{Service: service("s0", "name0")}, endpoint("e0", "n0", "s0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		put  []Object
		gone []Ref
		want error
	}{
		{"what is gone wasn't there", nil, []Ref{{KindEndpoint, "e9"}}, ErrNotFound},
		{"a network with an endpoint is gone", nil, []Ref{{KindNetwork, "n0"}}, ErrNotFound},
		{"a service with an endpoint is gone", nil, []Ref{{KindService, "s0"}}, ErrInvalid},
		{"an endpoint of no service", []Object{&Endpoint{ID: "e1", Network: "n0", Service: "s9", Address: s.Endpoint("e0").Address.Next(), Connection: Connection{State: Pending, LinkID: 5}}}, nil, ErrInvalid},
		{"an address twice", []Object{&Endpoint{ID: "e1", Network: "n0", Service: "s0", Address: s.Endpoint("e0").Address, Connection: Connection{State: Pending, LinkID: 5}}}, nil, ErrConflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := s.Follow(7, c.put, c.gone); !errors.Is(err, c.want) || got != nil {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}
