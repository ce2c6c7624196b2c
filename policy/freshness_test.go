package policy

import (
	"testing"
	"time"
)

// X35: the levels by mode, and for a service that demands strict freshness. An age at a bound is past it.
func TestLevel(t *testing.T) {
	const s, m = time.Second, time.Minute
	best, strict := Limits{Bound: 15 * m}, Limits{Bound: 30 * s, Strict: true}
	tests := []struct {
		name    string
		limits  Limits
		demands bool
		ages    [4]time.Duration // where each level begins; -1: it never does
	}{
		{"best effort", best, false, [4]time.Duration{0, 10 * s, 15 * m, -1}},
		{"best effort, strict service", best, true, [4]time.Duration{0, 10 * s, 30 * s, 60 * s}},
		{"best effort with a shorter bound, strict service", Limits{Bound: 20 * s}, true, [4]time.Duration{0, 10 * s, 20 * s, 40 * s}},
		{"strict", strict, false, [4]time.Duration{0, 10 * s, 30 * s, 60 * s}},
		{"strict, strict service", strict, true, [4]time.Duration{0, 10 * s, 30 * s, 60 * s}},
		{"a longer strict bound, strict service", Limits{Bound: 5 * m, Strict: true}, true, [4]time.Duration{0, 10 * s, 5 * m, 10 * m}},
		{"a short bound is told of at half", Limits{Bound: 10 * s, Strict: true}, false, [4]time.Duration{0, 5 * s, 10 * s, 20 * s}},
		{"always fresh", Limits{}, false, [4]time.Duration{0, -1, -1, -1}},
		{"always fresh, strict service", Limits{}, true, [4]time.Duration{0, -1, -1, -1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			last := Fresh
			for i, begins := range tt.ages {
				if begins < 0 {
					continue
				}
				if begins > 0 {
					if got := (Freshness{begins - 1, tt.limits}).Level(tt.demands); got != last {
						t.Errorf("just before %v: %v, want %v", begins, got, last)
					}
				}
				last = Level(i)
				if got := (Freshness{begins, tt.limits}).Level(tt.demands); got != last {
					t.Errorf("at %v: %v, want %v", begins, got, last)
				}
			}
			if got := (Freshness{1000 * time.Hour, tt.limits}).Level(tt.demands); got != last {
				t.Errorf("after all: %v, want %v", got, last)
			}
		})
	}
}
