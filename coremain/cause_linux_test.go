package coremain

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/node/confine"
)

// TestClosed: where a file's own mode denies, its owner is told, and the sandbox is not blamed.
func TestClosed(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "identities.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := closed(path); got != "" {
		t.Errorf("to its owner: %s", got)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	t.Cleanup(func() {
		if err := unix.Setfsuid(0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	if got, want := closed(path), "it is root's, with mode 0600"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	sub := filepath.Join(dir, "none")
	if got := closed(sub); got != "" {
		t.Errorf("a file that isn't there: %s", got)
	}
}

// TestDeniedPath: which file an error is about.
func TestDeniedPath(t *testing.T) {
	for text, want := range map[string]string{
		"Corefile:3 - linkapi: open /etc/postern/identities.json: permission denied": "/etc/postern/identities.json",
		"open key.pem: permission denied":                                            "key.pem",
		"listen tcp 10.0.0.1:53: bind: permission denied":                            "",
	} {
		got := ""
		if m := reDenied.FindStringSubmatch(text); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestWideState: a state in the root directory is named with its place and what to write instead.
func TestWideState(t *testing.T) {
	for _, tc := range []struct{ name, store, want string }{
		{"named", " linkstore bolt /postern.db\n", "Corefile:2 - linkstore: the state is /postern.db, "},
		{"elsewhere", " linkstore bolt /var/lib/postern/postern.db\n", confine.ErrWide.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := parseCorefile("Corefile", []byte(".:53 {\n"+tc.store+" privatelink\n}\n"), directives)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.wide(confine.ErrWide).Error(); !strings.HasPrefix(got, tc.want) {
				t.Errorf("%s", got)
			}
			other := errors.New("other")
			if c.wide(other) != other {
				t.Error("another error was changed")
			}
		})
	}
}
