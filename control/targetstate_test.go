package control

import (
	"net/netip"
	"testing"
	"time"
)

// What a provider is told of a target: the first thing that keeps flows from it, and nothing where there is none.
func TestTargetState(t *testing.T) {
	at, until := netip.MustParseAddrPort("10.20.0.4:443"), time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		state       TargetState
		says, words string
	}{
		"up":           {TargetState{Weight: 1, Up: true, Share: 1000}, "up", ""},
		"not probed":   {TargetState{Weight: 1, Share: 1000}, "unknown", ""},
		"starting":     {TargetState{Weight: 3, Up: true, Share: 400}, "starting", " (starting, 40 % of its share)"},
		"ejected":      {TargetState{Weight: 1, Up: true, Ejected: true, Until: until, Share: 100}, "ejected", " (ejected until 2026-11-22T13:00:00Z)"},
		"down":         {TargetState{Weight: 1, Down: true, Ejected: true, Until: until, Share: 1000}, "down", " (down)"},
		"drained":      {TargetState{Up: true, Share: 1000}, "drained", " (drained)"},
		"drained, out": {TargetState{Down: true, Share: 1000}, "drained", " (drained)"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.state.Addr, tt.state.Flows = at, 7
			x := tt.state.explained()
			if x.State != tt.says || x.Target != at.String() || x.Flows != 7 || (x.Until != nil) != (tt.says == TargetEjected) || (x.Share > 0) != (tt.says == TargetStarting) {
				t.Errorf("%+v", x)
			}
			if words := unusual([]ExplainedTarget{{Target: "10.20.0.5:443", State: TargetDown}, x}, at); words != tt.words {
				t.Errorf("in words %q, want %q", words, tt.words)
			}
		})
	}
	if drained(nil) || drained([]ExplainedTarget{{State: TargetDrained}, {State: TargetDown}}) || !drained([]ExplainedTarget{{State: TargetDrained}}) {
		t.Error("drained is what is drained altogether")
	}
}
