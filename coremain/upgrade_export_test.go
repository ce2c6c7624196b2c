package coremain

import (
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestUpgradeExports: the new process goes on with the audit record where the old one was, and sends none of it twice; a flow that the old
// process has kept is recorded and sent by that one.
func TestUpgradeExports(t *testing.T) {
	var mu sync.Mutex
	var flows int
	entries := map[uint64]int{}
	siem := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for d := json.NewDecoder(z); ; {
			var one struct {
				Message  string
				Revision uint64
			}
			if d.Decode(&one) != nil {
				return
			}
			if one.Message == "flow ended" {
				flows++
			} else if one.Revision > 0 {
				entries[one.Revision]++
			}
		}
	}))
	defer siem.Close()
	var port, target string
	corefile := func(extra string) string {
		text := upgradeCorefile(port, target, "", false)
		return strings.TrimSuffix(text, "}\n") + " linkexport siem {\n  webhook " + siem.URL + "\n }\n" + extra + "}\n"
	}
	u := startUpgraded(t, func(p, to string) string { port, target = p, to; return corefile("") })
	position := filepath.Join(u.dir, "state", "export-siem.position")
	eventually := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			ok := is()
			mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("not in time: %s\n%s", what, u.output())
			}
		}
	}
	var before []byte
	eventually("the position is kept", func() (ok bool) {
		text, err := os.ReadFile(position)
		before = text
		return err == nil && entries[1] > 0
	})
	live, err := u.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := says(live, "before"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(u.dir, "Corefile"), []byte(corefile(" linknetwork more 192.0.2.0/24\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	u.upgrade()
	if err := says(live, "after"); err != nil {
		t.Fatal(err)
	}
	live.Close()
	eventually("the flow that the old process has kept is sent", func() bool { return flows == 1 })
	eventually("the new process goes on with the audit record", func() bool {
		text, err := os.ReadFile(position)
		return err == nil && string(text) != string(before)
	})
	mu.Lock()
	defer mu.Unlock()
	for revision := uint64(1); revision <= uint64(len(entries)); revision++ {
		if entries[revision] != 1 {
			t.Errorf("entry %d came %d times", revision, entries[revision])
		}
	}
}
