package proxy

import (
	"testing"
	"time"
)

// X27: rounds that take long are rare, short ones come each time.
func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1_800_000_000, 0)
	if !p.due(now) {
		t.Error("the first isn't due")
	}
	for _, tt := range []struct{ took, rest time.Duration }{{time.Millisecond, 4 * time.Millisecond}, {200 * time.Millisecond, 800 * time.Millisecond}, {50 * time.Second, 200 * time.Second}} {
		p.took(now, now.Add(tt.took))
		now = now.Add(tt.took)
		if p.due(now.Add(tt.rest-time.Nanosecond)) || !p.due(now.Add(tt.rest)) {
			t.Errorf("after %v the next isn't due after %v", tt.took, tt.rest)
		}
	}
}
