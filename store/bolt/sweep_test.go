package bolt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// TestSweep: what a crash left half made goes with the next open, and nothing else does.
func TestSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state [1].db") // a name with what means something in a pattern
	s := mustOpen(t, path)
	mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
	file := func(suffix string) {
		if err := os.WriteFile(path+suffix, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	swept := []string{".new-1", ".new-4294967295", ".witness.new-22", ".new-3.witness", ".new-3.witness.new-4"}
	kept := []string{".new", ".new-", ".new-12x", ".new-1.bak", ".newer-1", ".witness.new-", ".damaged-1", "2.new-1"}
	for _, suffix := range append(swept, kept...) {
		file(suffix)
	}
	// The crash was after the file got its name, and before it lost the old one.
	if err := os.Link(path, path+".new-5"); err != nil {
		t.Fatal(err)
	}
	swept = append(swept, ".new-5")
	if err := errors.Join(os.Mkdir(path+".new-6", 0o700), os.Symlink(path, path+".new-7")); err != nil {
		t.Fatal(err)
	}
	kept = append(kept, ".new-6", ".new-7")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "state 1.db.new-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := Open(path, Options{}); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("open: %v, want ErrLocked", err)
	}
	if _, err := os.Lstat(path + ".new-1"); err != nil {
		t.Error("swept without the lock:", err)
	}
	mustClose(t, s)
	if _, err := Read(path); err != nil {
		t.Fatal("read:", err)
	}
	if _, err := os.Lstat(path + ".new-1"); err != nil {
		t.Error("swept by a reader:", err)
	}

	s = mustOpen(t, path)
	for _, suffix := range swept {
		if _, err := os.Lstat(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", suffix, err)
		}
	}
	for _, suffix := range kept {
		if _, err := os.Lstat(path + suffix); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(path), "state 1.db.new-1")); err != nil {
		t.Error(err)
	}
	if got := s.current.Load().Revision(); got != 1 {
		t.Errorf("revision %d, want 1", got)
	}
	mustClose(t, s)
}

// TestRead: the same verdict as Open's, beside other readers and not beside a store.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, path)
	mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
	if _, err := Read(path); !errors.Is(err, store.ErrLocked) {
		t.Errorf("beside a store: %v, want ErrLocked", err)
	}
	old := bytes.Clone(readAll(t, path))
	mustCommit(t, s, 2, link.PutNetwork{Network: storetest.Network(2)})
	mustClose(t, s)

	f, err := openLocked(path, os.O_RDONLY, unix.LOCK_SH) // another reader
	if err != nil {
		t.Fatal(err)
	}
	snap, err := Read(path)
	if err != nil || snap.Revision() != 2 || snap.Network(storetest.Network(2).ID) == nil {
		t.Errorf("beside a reader: %v, %v", snap, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Errorf("reading made the mode %v, %v", st.Mode(), err)
	}

	o := makeOriginal(t)
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"rolled back", putFiles(t, old, readAll(t, path+witnessSuffix)), store.ErrDamaged},
		{"cut", putFiles(t, o.file[:len(o.file)/2], o.witness), store.ErrDamaged},
		{"empty", putFiles(t, nil, nil), store.ErrDamaged},
		{"directory", t.TempDir(), store.ErrForeign},
		{"gone", filepath.Join(t.TempDir(), "state"), fs.ErrNotExist},
	} {
		if _, err := Read(c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}
