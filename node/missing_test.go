package node

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestMissing: a rule that names what isn't there is told of when the configuration comes into force, and counted
// as long as it is so; the same of what the same configuration makes is no matter.
func TestMissing(t *testing.T) {
	var log lockedBuffer
	c := config(t, filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t), "127.77.0.5")
	registry := prometheus.NewRegistry()
	c.Log, c.Registerer = slog.New(slog.NewTextHandler(&log, nil)), registry
	rule := func(id link.ID) []Policy {
		return []Policy{{Set: policy.Set{Name: "p", Default: policy.DefaultAllow,
			Rules: []policy.Rule{{Name: "r", Conditions: policy.Conditions{Services: []link.ID{id}}}}}}}
	}
	counts := func(want string) {
		t.Helper()
		text := "# HELP postern_policy_missing_objects Number of endpoints, services and networks that rules name and the state in force doesn't have.\n" +
			"# TYPE postern_policy_missing_objects gauge\npostern_policy_missing_objects " + want + "\n"
		if want == "" {
			text = ""
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "postern_policy_missing_objects"); err != nil {
			t.Error(err)
		}
	}
	n := open(t, c)
	defer closeNode(t, n)
	counts("")
	c.Policies = rule("sql")
	commit(t, n, c)
	counts("0")
	if strings.Contains(log.String(), "isn't there") {
		t.Errorf("it is there: %s", &log)
	}
	c.Policies = rule("slq")
	commit(t, n, c)
	counts("1")
	for _, word := range []string{"level=WARN", "rule=p/r", "service=slq"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("no %s in %s", word, &log)
		}
	}
	c.Policies = nil
	commit(t, n, c)
	counts("")
}
