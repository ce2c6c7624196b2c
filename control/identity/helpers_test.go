package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// IDs of the tests' tenants and subscriptions.
const (
	operatorID = "00000000-0000-4000-8000-000000000001"
	operatorS  = "00000000-0000-4000-8000-000000000011"
	contosoID  = "00000000-0000-4000-8000-000000000002"
	contosoS   = "00000000-0000-4000-8000-000000000012"
	contosoS2  = "00000000-0000-4000-8000-000000000022"
	fabrikamID = "00000000-0000-4000-8000-000000000003"
	fabrikamS  = "00000000-0000-4000-8000-000000000013"
	clientID   = "00000000-0000-4000-8000-0000000000c1"
)

const tenants = `"tenants": [
  {"name": "operator", "id": "` + operatorID + `", "operator": true, "subscriptions": [{"id": "` + operatorS + `", "name": "Operator"}]},
  {"name": "Contoso", "id": "` + contosoID + `", "domains": ["contoso.example."], "networks": ["10.1.0.0/16"], "targets": ["fd00::/64"],
   "subscriptions": [{"id": "` + contosoS + `", "name": "Contoso one"}, {"id": "` + contosoS2 + `", "name": "Contoso two"}]},
  {"name": "fabrikam", "id": "` + fabrikamID + `", "subscriptions": [{"id": "` + fabrikamS + `", "name": "Fabrikam"}]}
]`

func sumOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// who returns a file with the tests' tenants and these identities, and what else is given.
func who(identities string, more ...string) string {
	return "{" + strings.Join(append([]string{tenants, `"identities": [` + identities + `]`}, more...), ",\n") + "}"
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// put writes an identities file into a directory of its own.
func put(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identities.json")
	write(t, path, text)
	return path
}

// start opens a directory and closes it after the test.
func start(t testing.TB, path string, o Options) *Directory {
	t.Helper()
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// clock is a settable time.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// journal is a log that can be read.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
