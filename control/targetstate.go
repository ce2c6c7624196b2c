package control

import (
	"fmt"
	"net/netip"
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
	// State is drained, down, ejected, starting, up or unknown: the first that is true of it. One that is drained gets no flow, and
	// the others in this order only where there is no better one.
	State string `json:"state"`
	Flows int    `json:"flows"` // that have a place there
	// Share is what it gets of what it weighs while it is starting, of 1.
	Share float64 `json:"share,omitempty"`
	// Until is when one that is ejected is back.
	Until *time.Time `json:"until,omitempty"`
}

// The states of a target.
const (
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
	x := ExplainedTarget{Target: t.Addr.String(), Flows: t.Flows}
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
	switch x.State {
	case TargetUp, TargetUnknown:
		return ""
	case TargetEjected:
		return "ejected until " + x.Until.Format(time.RFC3339)
	case TargetStarting:
		return fmt.Sprintf("starting, %.0f %% of its share", 100*x.Share)
	}
	return x.State
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

// drained reports whether no target may have a flow.
func drained(all []ExplainedTarget) bool {
	for _, t := range all {
		if t.State != TargetDrained {
			return false
		}
	}
	return len(all) > 0
}
