package meter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/store"
)

// TestMeter: commits are counted by outcome, only stored ones have a duration, and nothing is left at the end.
func TestMeter(t *testing.T) {
	reg := prometheus.NewRegistry()
	own := prometheus.NewGauge(prometheus.GaugeOpts(Opts("revision", "Own.")))
	m, err := New(reg, own)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, nil, store.ErrConflict, errors.New("disk")} {
		m.Committed(time.Second, err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`# HELP postern_store_commits_total Commits by outcome: stored, conflict, refused by a rule, unknown, failed.
# TYPE postern_store_commits_total counter
postern_store_commits_total{outcome="conflict"} 1
postern_store_commits_total{outcome="failed"} 1
postern_store_commits_total{outcome="stored"} 2
`), "postern_store_commits_total"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(m.duration); n != 1 {
		t.Errorf("%d histograms", n)
	}
	if other, err := New(reg, own); err == nil || other != nil {
		t.Error("registered twice")
	}
	if n, err := testutil.GatherAndCount(reg); n != 5 || err != nil { // three outcomes, the histogram and the gauge
		t.Errorf("%d metrics after another store was refused, %v", n, err)
	}
	m.Unregister()
	if n, err := testutil.GatherAndCount(reg); n != 0 || err != nil {
		t.Errorf("%d metrics left, %v", n, err)
	}
}

// TestNobodyToTell: a store that tells nobody does all the same.
func TestNobodyToTell(t *testing.T) {
	m, err := New(nil)
	if m != nil || err != nil {
		t.Fatal(m, err)
	}
	m.Committed(time.Second, nil)
	m.Unregister()
}
