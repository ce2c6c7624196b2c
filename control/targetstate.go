package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// TargetState is what this node observes of a target of a service.
type TargetState struct {
	Addr     netip.AddrPort
	Weight   int // 0: it is drained
	Flows    int // that have a place
	Up, Down bool
	Ejected  bool
	Until    time.Time // when that is over
	Share    int       // of what it weighs, in thousandths: less than all while it is led up to it
}

// ExplainedTarget is a target as a flow would find it.
type ExplainedTarget struct {
	Target string `json:"target"` // ADDRESS:PORT
	// State is forbidden, drained, down, ejected, starting, up or unknown: the first that is true of it. One that is forbidden or drained gets
	// no flow, and the others in this order only where there is no better one.
	State string `json:"state"`
	Rule  string `json:"rule,omitempty"` // that forbids it
	// Site is where the service says that it is; "" for nowhere. First: it is one of those that the flow may get, as long as none of
	// them fails. The others come after them.
	Site  string `json:"site,omitempty"`
	First bool   `json:"first"`
	Flows int    `json:"flows"` // that have a place there
	// Share is what it gets of what it weighs while it is starting, of 1.
	Share float64 `json:"share,omitempty"`
	// Until is when one that is ejected is back.
	Until *time.Time `json:"until,omitempty"`
	at    netip.AddrPort
}

// The states of a target.
const (
	TargetForbidden = "forbidden" // by a rule about targets

	TargetDrained  = "drained"
	TargetDown     = "down"
	TargetEjected  = "ejected"
	TargetStarting = "starting"
	TargetUp       = "up"
	TargetUnknown  = "unknown" // no probe has said anything yet, or none can: of UDP
)

// wholeShare is what TargetState.Share is of.
const wholeShare = 1000

// explained returns the target as it is shown.
func (t *TargetState) explained() ExplainedTarget {
	x := ExplainedTarget{Target: t.Addr.String(), Flows: t.Flows, at: t.Addr}
	switch {
	case t.Weight == 0:
		x.State = TargetDrained
	case t.Down:
		x.State = TargetDown
	case t.Ejected:
		until := t.Until.UTC()
		x.State, x.Until = TargetEjected, &until
	case t.Share < wholeShare:
		x.State, x.Share = TargetStarting, float64(t.Share)/wholeShare
	case t.Up:
		x.State = TargetUp
	default:
		x.State = TargetUnknown
	}
	return x
}

// words is what is said of it behind its address; "" where there is nothing out of the ordinary.
func (x *ExplainedTarget) words() string {
	var all []string
	switch x.State {
	case TargetUp, TargetUnknown:
	case TargetForbidden:
		all = append(all, forbidden(x.Rule))
	case TargetEjected:
		all = append(all, "ejected until "+x.Until.Format(time.RFC3339))
	case TargetStarting:
		all = append(all, fmt.Sprintf("starting, %.0f %% of its share", 100*x.Share))
	default:
		all = append(all, x.State)
	}
	if x.Site != "" {
		all = append(all, "site "+x.Site)
	}
	return strings.Join(all, ", ")
}

func forbidden(rule string) string { return TargetForbidden + ": " + rule }

// weigh says of each target of a service whether it is forbidden, where it is, and whether a flow to an endpoint at a site is offered it
// first; those come first in the list. It is what package targets does when a flow asks for a place.
func (c *Control) weigh(all []ExplainedTarget, s *link.Snapshot, v *link.Service, site string, sees scope) {
	best := classes
	ground := c.ground()
	for i := range all {
		x := &all[i]
		x.Site = v.Sites.Of(x.at.Addr())
		if why := s.Refuses(v, x.at, ground); why != "" {
			x.State, x.Rule, x.Share, x.Until = TargetForbidden, sees.refusal(v.ID, why), 0, nil
		}
		best = min(best, x.class())
	}
	may := func(x *ExplainedTarget) bool {
		return x.class() == best && best < classes && (v.MaxPerTarget == 0 || x.Flows < v.MaxPerTarget)
	}
	near := site != "" && slices.ContainsFunc(all, func(x ExplainedTarget) bool { return may(&x) && x.Site == site })
	for i := range all {
		all[i].First = may(&all[i]) && (!near || all[i].Site == site)
	}
	slices.SortStableFunc(all, func(a, b ExplainedTarget) int {
		switch {
		case a.First == b.First:
			return 0
		case a.First:
			return -1
		}
		return 1
	})
}

// classes is more than any class of a target that a flow may get.
const classes = 3

// class is how good a target is for a flow; the lower the better.
func (x *ExplainedTarget) class() int {
	switch x.State {
	case TargetForbidden, TargetDrained:
		return classes
	case TargetDown:
		return 2
	case TargetEjected:
		return 1
	}
	return 0
}

// targetStates returns what this node observes of the targets of a service; nothing where it has no data plane.
func (c *Control) targetStates(service link.ID) (all []ExplainedTarget) {
	if c.config.Targets == nil {
		return nil
	}
	for _, t := range c.config.Targets(service) {
		all = append(all, t.explained())
	}
	return all
}

// unusual returns what there is to say of a target, in brackets; "" for nothing.
func unusual(all []ExplainedTarget, target netip.AddrPort) string {
	text := target.String()
	for i := range all {
		if all[i].Target == text {
			if words := all[i].words(); words != "" {
				return " (" + words + ")"
			}
		}
	}
	return ""
}

// drained reports whether no target may have a flow, though one isn't forbidden.
func drained(all []ExplainedTarget) (are bool) {
	for _, t := range all {
		switch t.State {
		case TargetForbidden:
		case TargetDrained:
			are = true
		default:
			return false
		}
	}
	return are
}
