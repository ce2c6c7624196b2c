package bolt

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/storetest"
)

// TestWitnessInPlace: a witness of ours is overwritten where it is; what may be somebody else's is left as it
// is, and a new one takes the name.
func TestWitnessInPlace(t *testing.T) {
	for _, c := range []struct {
		name    string
		inPlace bool
		prepare func(t *testing.T, witness, other string) error
	}{
		{"ours", true, func(*testing.T, string, string) error { return nil }},
		{"ours, readable by others", true, func(_ *testing.T, w, _ string) error { return os.Chmod(w, 0o644) }},
		{"symlink", false, func(_ *testing.T, w, other string) error {
			if err := os.Rename(w, other); err != nil {
				return err
			}
			return os.Symlink(other, w)
		}},
		{"second name", false, func(_ *testing.T, w, other string) error { return os.Link(w, other) }},
		{"longer", false, func(t *testing.T, w, other string) error {
			b := append(readAll(t, w), '\n')
			return os.WriteFile(w, b, 0o600)
		}},
		{"damaged", false, func(t *testing.T, w, other string) error {
			b := readAll(t, w)
			b[40] ^= 1
			return os.WriteFile(w, b, 0o600)
		}},
		{"pipe", false, func(_ *testing.T, w, other string) error {
			if err := os.Remove(w); err != nil {
				return err
			}
			return unix.Mkfifo(w, 0o600)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			other := path + ".other"
			s := mustOpen(t, path)
			mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
			mustClose(t, s)
			if err := c.prepare(t, path+witnessSuffix, other); err != nil {
				t.Fatal(err)
			}
			foreign, _ := os.ReadFile(other) // none in most cases
			before, err := os.Lstat(path + witnessSuffix)
			if err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, path)
			mustCommit(t, s, 2)
			mustClose(t, s)
			after, err := os.Lstat(path + witnessSuffix)
			if err != nil {
				t.Fatal(err)
			}
			if got := os.SameFile(before, after); got != c.inPlace {
				t.Errorf("the same file: %t, want %t", got, c.inPlace)
			}
			if after.Mode() != 0o600 || after.Size() != witnessSize {
				t.Errorf("mode %v, %d bytes", after.Mode(), after.Size())
			}
			if err := witnessAt(path, 2); err != nil {
				t.Error(err)
			}
			if now, _ := os.ReadFile(other); !bytes.Equal(now, foreign) {
				t.Error("the other file was changed")
			}
		})
	}
}
