package external

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkAuthorize: what a program adds to a decision that isn't kept, and one that is. The goal is a median
// of 250 microseconds.
func BenchmarkAuthorize(b *testing.B) {
	w := start(b, config("obeys"))
	for _, do := range []string{"allow", "kept"} {
		b.Run(do, func(b *testing.B) {
			q := about(do)
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				began := time.Now()
				if !w.Authorize(b.Context(), q).Allow {
					b.Fatal("refused")
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
		})
	}
}
