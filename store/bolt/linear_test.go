package bolt

import (
	"path/filepath"
	"testing"

	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// A07 on one node.
func TestLinearizable(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "state"))
	defer s.Close()
	storetest.Linearizable(t, []store.Store{s}, 20, 30)
}

// A07 with commits whose outcome nobody knows.
func TestLinearizableWithFaults(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "state"))
	defer s.Close()
	f := &storetest.Fault{Store: s}
	plan := make([]storetest.Outcome, 600)
	for i := range plan {
		plan[i] = storetest.Outcome(i * 7 % 20) // beyond Landed they pass
	}
	plan[0] = storetest.Pass
	f.Plan(plan...)
	storetest.Linearizable(t, []store.Store{f}, 10, 30)
}
