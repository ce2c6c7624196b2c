package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// TargetName is what this node finds of a target that is written as a name.
type TargetName struct {
	Target  link.NamePort
	Addrs   []netip.Addr          // that are targets now
	Refused map[netip.Addr]string // that the name leads to and that may not be targets, with the rule of each
	At      time.Time             // of the lookup that has found them; zero: none has found any
	Err     error                 // of the newest lookup; nil where it has found them
	Looked  bool                  // a lookup has ended
}

// targetNames returns what this node finds of the names of a service's targets, in their order; ok is false where it has no data
// plane, and nothing is found out.
func (c *Control) targetNames(service link.ID) (all []TargetName, ok bool) {
	if c.config.TargetNames == nil {
		return nil, false
	}
	return c.config.TargetNames(service), true
}

// words says where a name leads, and how the targets are. Who is no operator isn't told what the rules keep from them, nor whom the node asks.
func (n *TargetName) words(sees scope, service link.ID, states []ExplainedTarget) string {
	var parts []string
	for _, a := range n.Addrs {
		parts = append(parts, a.String()+unusual(states, netip.AddrPortFrom(a, n.Target.Port)))
	}
	switch {
	case !n.Looked:
		parts = append(parts, "not looked up yet")
	case n.Err != nil && sees.all:
		parts = append(parts, "not found: "+n.Err.Error())
	case n.Err != nil:
		parts = append(parts, "not found")
	}
	if n.Err != nil && len(n.Addrs) > 0 {
		parts[len(parts)-1] += ", last " + n.At.UTC().Format(time.RFC3339)
	}
	refused := make([]netip.Addr, 0, len(n.Refused))
	for a := range n.Refused {
		refused = append(refused, a)
	}
	slices.SortFunc(refused, netip.Addr.Compare)
	for _, a := range refused {
		if why := n.Refused[a]; sees.all {
			parts = append(parts, fmt.Sprintf("%s refused: %s", a, why))
		} else if said := "an address refused: " + sees.refusal(service, why); !slices.Contains(parts, said) {
			parts = append(parts, said)
		}
	}
	return n.Target.String() + " (" + strings.Join(parts, ", ") + ")"
}

// aims is where a service may send now: what there is to tell of its targets, and why to none of them, "" where to any.
func (c *Control) aims(s *link.Snapshot, v *link.Service, g link.Ground, sees scope, states []ExplainedTarget) (list []string, none string) {
	usable := false
	for _, t := range v.Targets {
		why, words := s.Refuses(v, t.Addr, g), unusual(states, t.Addr)
		if why == "" {
			usable = true
		} else {
			if none == "" {
				none = "none is allowed: " + sees.refusal(v.ID, why)
			}
			if words == "" { // nothing is observed here
				words = " (" + forbidden(sees.refusal(v.ID, why)) + ")"
			}
		}
		list = append(list, t.Addr.String()+words)
	}
	names, known := c.targetNames(v.ID)
	if !known || len(names) == 0 { // nothing is looked up here, or not yet
		for _, n := range v.TargetNames {
			list, usable = append(list, n.String()), true
		}
	}
	for _, n := range names {
		list = append(list, n.words(sees, v.ID, states))
		usable = usable || len(n.Addrs) > 0
		for _, why := range n.Refused {
			if none == "" {
				none = "none is allowed: " + sees.refusal(v.ID, why)
			}
		}
	}
	switch {
	case usable:
		return list, ""
	case none == "":
		return list, "none is found"
	}
	return list, none
}

// NameStatus is how a name of targets is on a node.
type NameStatus struct {
	Service   link.ID           `json:"service"`
	Target    string            `json:"target"` // NAME:PORT
	Addresses []string          `json:"addresses"`
	Refused   map[string]string `json:"refused,omitempty"` // with the rule of each
	Age       float64           `json:"ageSeconds"`        // since the addresses were found; 0 where none were
	Error     string            `json:"error,omitempty"`   // of the newest lookup
}

// mostNames bounds the names that a status lists.
const mostNames = 100

// nameStatus returns how the names of targets are: those that there is something wrong with first, and how many there are in
// all. Names of services without a live connection aren't looked up.
func (c *Control) nameStatus(s *link.Snapshot) (list []NameStatus, all int) {
	now := c.config.Now()
	for v := range s.Services() {
		if len(v.TargetNames) == 0 {
			continue
		}
		names, _ := c.targetNames(v.ID)
		for _, n := range names {
			one := NameStatus{Service: v.ID, Target: n.Target.String(), Addresses: texts(n.Addrs)}
			for a, why := range n.Refused {
				if one.Refused == nil {
					one.Refused = make(map[string]string)
				}
				one.Refused[a.String()] = why
			}
			if !n.At.IsZero() {
				one.Age = now.Sub(n.At).Seconds()
			}
			if n.Err != nil {
				one.Error = n.Err.Error()
			}
			list = append(list, one)
		}
	}
	all = len(list)
	well := func(n NameStatus) bool { return n.Error == "" && len(n.Refused) == 0 }
	slices.SortStableFunc(list, func(a, b NameStatus) int {
		switch {
		case well(a) == well(b):
			return 0
		case well(b):
			return -1
		}
		return 1
	})
	return slices.Clip(list[:min(all, mostNames)]), all
}
