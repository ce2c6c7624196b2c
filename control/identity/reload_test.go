package identity

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestRun: a changed file is in force within a poll; a wrong one leaves the one before, is counted and
// logged once, and doesn't keep the next good one out.
func TestRun(t *testing.T) {
	token := newSecret(tokenPrefix)
	good := who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "` + sumOf(token) + `"}]}`)
	path := put(t, good)
	synctest.Test(t, func(t *testing.T) {
		var j journal
		d := start(t, path, Options{Log: j.log(), Registerer: prometheus.NewRegistry()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); d.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		time.Sleep(pollEvery / 2) // from here on this goroutine wakes between two polls, and so never writes under a read
		in := func() bool {
			time.Sleep(3 * pollEvery)
			_, err := d.Authenticate(t.Context(), Credential{Bearer: token})
			return err == nil
		}
		counts := func(loaded, failed float64) {
			t.Helper()
			l, f := testutil.ToFloat64(d.metrics.reloads.WithLabelValues("loaded")), testutil.ToFloat64(d.metrics.reloads.WithLabelValues("failed"))
			if l != loaded || f != failed {
				t.Errorf("%v loaded, %v failed, want %v and %v\n%s", l, f, loaded, failed, j.String())
			}
		}
		if !in() {
			t.Error("the first file isn't in force")
		}
		counts(0, 0)
		write(t, path, `{"tenants": [}`)
		if !in() {
			t.Error("a wrong file took the access away")
		}
		counts(0, 1)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if !in() {
			t.Error("a file that is gone took the access away")
		}
		counts(0, 2)
		write(t, path, who(""))
		if in() {
			t.Error("an identity that was removed has access")
		}
		counts(1, 2)
		write(t, path, good)
		if !in() {
			t.Error("an identity that was added has no access")
		}
		counts(2, 2)
		if n := strings.Count(j.String(), "not reloaded"); n != 2 {
			t.Errorf("%d complaints in the log:\n%s", n, j.String())
		}
	})
}

// TestChanged: a file is read again when its time, size or inode differs, and while its time can't tell.
func TestChanged(t *testing.T) {
	ca := newAuthority(t, "corp").file(t)
	text := who("", `"authorities": [{"name": "corp", "file": "`+ca+`"}]`)
	long := time.Now().Add(-time.Hour)
	for _, tc := range []struct {
		name   string
		change func(path string) error
		want   bool
	}{
		{"nothing", func(string) error { return nil }, false},
		{"time", func(path string) error { return os.Chtimes(path, long, long.Add(time.Second)) }, true},
		{"size", func(path string) error {
			if err := os.WriteFile(path, []byte(text+" "), 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, long, long)
		}, true},
		{"another file with the same time and size", func(path string) error {
			other := path + ".new"
			if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
				return err
			}
			if err := os.Chtimes(other, long, long); err != nil {
				return err
			}
			return os.Rename(other, path)
		}, true},
		{"a file that it names", func(string) error { return os.Chtimes(ca, long, time.Now()) }, true},
		{"gone", os.Remove, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := put(t, text)
			for _, p := range []string{path, ca} {
				if err := os.Chtimes(p, long, long); err != nil {
					t.Fatal(err)
				}
			}
			d := start(t, path, Options{})
			if err := tc.change(path); err != nil {
				t.Fatal(err)
			}
			if got := d.changed(); got != tc.want {
				t.Errorf("changed: %v", got)
			}
		})
	}
	if d := start(t, put(t, text), Options{}); !d.changed() {
		t.Error("a file written a moment ago is taken for settled")
	}
}

// TestSecondDirectory: the next configuration opens its directory before the old one is closed.
func TestSecondDirectory(t *testing.T) {
	path, reg := put(t, who("")), prometheus.NewRegistry()
	old := start(t, path, Options{Registerer: reg})
	next := start(t, path, Options{Registerer: reg})
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	_, _ = next.Authenticate(t.Context(), Credential{})
	_, _ = old.Authenticate(t.Context(), Credential{})
	if n := testutil.ToFloat64(next.metrics.signIns.WithLabelValues("none", "refused")); n != 2 {
		t.Errorf("%v refusals counted", n)
	}
	if n, err := testutil.GatherAndCount(reg, "postern_identity_sign_ins_total"); err != nil || n != 1 {
		t.Errorf("%d series, %v", n, err)
	}
}

func TestOpenMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.json")
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}
