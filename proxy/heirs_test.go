package proxy

import (
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// A service that takes over public names of a published one in the same network is published from
// the first moment, and its targets are as they were: the names never pass to public addresses.
func TestNamesAreHandedOn(t *testing.T) {
	named := func(names ...link.Name) func(*link.Service) {
		return func(s *link.Service) {
			for _, n := range names {
				s.Names = append(s.Names, link.ResourceName{Public: n})
			}
		}
	}
	for _, test := range []struct {
		name      string
		old, new  link.Name
		suspended bool // the connection of the old one
		dead      bool // the target of the old one
		want      bool
	}{
		{name: "same name", old: "a.example.com", new: "a.example.com", want: true},
		{name: "pattern over the name", old: "a.example.com", new: "*.example.com", want: true},
		{name: "name of a pattern", old: "*.example.com", new: "a.example.com", want: true},
		{name: "another name", old: "a.example.com", new: "b.example.com"},
		{name: "not answered before", old: "a.example.com", new: "a.example.com", suspended: true},
		{name: "D22 never published", old: "a.example.com", new: "a.example.com", dead: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := nextAddr(t)
			g := newTarget(t)
			at, dead := g.addr(), refusing(t)
			if test.dead {
				at = dead
			}
			w := newWorld(t, Settings{ProbeInterval: time.Hour}, service("old", 7001, at, named(test.old)), endpoint("e", "old", addr))
			if test.dead {
				eventually(t, "it was probed", func() bool { return w.proxy.Probed(t.Context()) == nil })
			} else {
				eventually(t, "it is published", func() bool { return w.proxy.Published("old") })
			}
			if test.suspended {
				w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
			}
			g.close()
			before := at
			if !test.want {
				before = dead // so that no probe publishes it
			}
			w.swap(link.DeleteEndpoint{ID: "e"}, link.DeleteService{ID: "old", Force: true},
				service("new", 7001, before, named(test.new)), endpoint("e", "new", addr))
			check := func(when string) {
				t.Helper()
				if w.proxy.Published("new") != test.want {
					t.Errorf("%s: published %v", when, !test.want)
				}
			}
			check("in force, not followed")
			w.proxy.Update(w.now.Load())
			check("followed")
			if test.want && !w.proxy.Published("old") {
				t.Error("who still reads the snapshot before lets the name pass")
			}
		})
	}
}

// A committed step follows the snapshot in force, not the one that it was prepared for.
func TestCommitKeepsHealth(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
	eventually(t, "it is published", func() bool { return w.proxy.Published("svc") })
	now := w.now.Load()
	ahead, _, err := now.Apply(time.Unix(1_800_000_000, 0), link.DeleteService{ID: "svc", Force: true})
	if err != nil {
		t.Fatal(err)
	}
	step, err := w.proxy.Prepare(ahead, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	step.Commit()
	if h := w.proxy.health.of("svc"); h == nil || !h.published.Load() || len(h.targets) != 1 {
		t.Error("forgotten before its snapshot")
	}
}
