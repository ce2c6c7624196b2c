package bolt

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/storetest"
)

func TestSetAside(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name   string
		damage func(path string) error
	}{
		{"cut", func(path string) error { return os.Truncate(path, pageSize) }},
		{"gone", os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			s := mustOpen(t, path)
			mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
			mustClose(t, s)
			if err := c.damage(path); err != nil {
				t.Fatal(err)
			}
			damaged, _ := os.ReadFile(path) // none where it is gone
			if _, err := Open(path, Options{}); err == nil {
				t.Fatal("opened")
			}
			aside, err := SetAside(path, at)
			if err != nil {
				t.Fatal(err)
			}
			if kept, _ := os.ReadFile(aside); !bytes.Equal(kept, damaged) {
				t.Error("the file set aside isn't the damaged one")
			}
			mustClose(t, mustOpen(t, path))
			if _, err := SetAside(path, at); c.name == "cut" && err == nil {
				t.Error("what was set aside before was overwritten")
			}
		})
	}
}
