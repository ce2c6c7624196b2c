package link

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// ids returns the IDs of what seq yields.
func ids[T any](seq iter.Seq[T], id func(T) ID) []ID {
	all := []ID{}
	for v := range seq {
		all = append(all, id(v))
	}
	return all
}

func TestListsBegin(t *testing.T) {
	s := must(t, Empty(),
		PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")},
		PutNetwork{network("a/g/net", "10.2.0.0/16", "")},
		PutService{Service: service("a/g/sql", "", Anyone)}, PutService{Service: service("web", "", Anyone)},
		PutDocument{Document{Type: "group", ID: "a/g/g"}}, PutDocument{Document{Type: "group", ID: "a/h/h"}},
		PutDocument{Document{Type: "other", ID: "a/g/g"}},
		PutZone{PrivateZone{ID: "a/g/one.example", Name: "one.example"}}, PutZone{PrivateZone{ID: "a/g/two.example", Name: "two.example"}},
		endpoint("a", "corp", "web"), endpoint("a/g/e1", "corp", "web"), endpoint("a/g/e2", "corp", "a/g/sql"),
		endpoint("a/g2/e", "corp", "web"), endpoint("ab/g/e", "corp", "web"),
	)
	endpointID, documentID := func(e *Endpoint) ID { return e.ID }, func(d *Document) ID { return d.ID }
	for _, c := range []struct {
		name string
		got  []ID
		want string
	}{
		{"everything", ids(s.EndpointsFrom("", ""), endpointID), "a a/g/e1 a/g/e2 a/g2/e ab/g/e"},
		{"a prefix", ids(s.EndpointsFrom("a/g/", ""), endpointID), "a/g/e1 a/g/e2"},
		{"a prefix that is an ID", ids(s.EndpointsFrom("a", ""), endpointID), "a a/g/e1 a/g/e2 a/g2/e ab/g/e"},
		{"behind an ID", ids(s.EndpointsFrom("a/", "a/g/e1"), endpointID), "a/g/e2 a/g2/e"},
		{"behind one that isn't there", ids(s.EndpointsFrom("a/", "a/g/e1x"), endpointID), "a/g/e2 a/g2/e"},
		{"behind what is before the prefix", ids(s.EndpointsFrom("a/g/", "a"), endpointID), "a/g/e1 a/g/e2"},
		{"behind what is after the prefix", ids(s.EndpointsFrom("a/g/", "b"), endpointID), ""},
		{"behind an ID, no prefix", ids(s.EndpointsFrom("", "a/g2/e"), endpointID), "ab/g/e"},
		{"of a service", ids(s.EndpointsOfFrom("web", ""), endpointID), "a a/g/e1 a/g2/e ab/g/e"},
		{"of a service, behind one", ids(s.EndpointsOfFrom("web", "a/g/e1"), endpointID), "a/g2/e ab/g/e"},
		{"of no service", ids(s.EndpointsOfFrom("we", ""), endpointID), ""},
		{"networks", ids(s.NetworksFrom("a/", ""), func(n *Network) ID { return n.ID }), "a/g/net"},
		{"services", ids(s.ServicesFrom("", "a/g/sql"), func(v *Service) ID { return v.ID }), "web"},
		{"zones", ids(s.ZonesFrom("a/", "a/g/one.example"), func(z *PrivateZone) ID { return z.ID }), "a/g/two.example"},
		{"documents of one type", ids(s.DocumentsFrom("group", "a/", ""), documentID), "a/g/g a/h/h"},
		{"documents, behind one", ids(s.DocumentsFrom("group", "a/", "a/g/g"), documentID), "a/h/h"},
		{"documents of no type", ids(s.DocumentsFrom("grou", "", ""), documentID), ""},
		{"nothing", ids(Empty().EndpointsFrom("", ""), endpointID), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if want := strings.Fields(c.want); !slices.Equal(c.got, ids(slices.Values(want), func(s string) ID { return ID(s) })) {
				t.Errorf("got %v, want %v", c.got, want)
			}
		})
	}
}

// TestListsAgainstModel compares pages with a filtered sorted slice.
func TestListsAgainstModel(t *testing.T) {
	s := large(t, 2000)
	all := ids(s.Endpoints(), func(e *Endpoint) ID { return e.ID })
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		prefix, after := fmt.Sprint("e", rng.IntN(30)), ID(fmt.Sprint("e", rng.IntN(3000)))
		want := slices.DeleteFunc(slices.Clone(all), func(id ID) bool { return id <= after || !strings.HasPrefix(string(id), prefix) })
		if got := ids(s.EndpointsFrom(prefix, after), func(e *Endpoint) ID { return e.ID }); !slices.Equal(got, want) {
			t.Fatalf("behind %s, beginning with %s: %d endpoints, want %d", after, prefix, len(got), len(want))
		}
	}
}
