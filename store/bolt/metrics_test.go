package bolt

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/storetest"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	opts := Options{Registerer: reg}
	path := filepath.Join(t.TempDir(), "state")
	s, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	base := s.current.Load()
	mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
	for what, changes := range map[string][]link.Change{
		"refused": {link.DeleteNetwork{ID: "no-such"}},
		"failed":  nil, // the context is done
	} {
		ctx := t.Context()
		if what == "failed" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			cancel()
		}
		if _, err := s.Commit(ctx, s.current.Load(), storetest.Entry(2), changes...); err == nil {
			t.Errorf("%s: stored", what)
		}
	}
	if _, err := s.Commit(t.Context(), base, storetest.Entry(3)); err == nil {
		t.Error("conflict: stored")
	}
	want := `
# HELP postern_store_commits_total Commits by outcome: stored, conflict, refused by a rule, unknown, failed.
# TYPE postern_store_commits_total counter
postern_store_commits_total{outcome="conflict"} 1
postern_store_commits_total{outcome="failed"} 1
postern_store_commits_total{outcome="refused"} 1
postern_store_commits_total{outcome="stored"} 1
# HELP postern_store_revision Revision of the state.
# TYPE postern_store_revision gauge
postern_store_revision 1
# HELP postern_store_writable 0 from a commit that could not be written, as on a full disk, until one is; else 1.
# TYPE postern_store_writable gauge
postern_store_writable 1
`
	names := []string{"postern_store_commits_total", "postern_store_revision", "postern_store_writable"}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if lint, err := testutil.GatherAndLint(reg); err != nil || len(lint) != 0 {
		t.Errorf("lint: %v, %v", lint, err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "other"), opts); err == nil {
		t.Error("a second store with the same registerer opened")
	}
	mustClose(t, s)
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("%d metrics left after close, %v", n, err)
	}
	if s, err = Open(path, opts); err != nil {
		t.Fatal("open again:", err)
	}
	mustClose(t, s)
}
