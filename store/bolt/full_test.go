package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// stateOf makes a state file of the given number of commits and returns the witness of the last but one.
func stateOf(path string, commits int) (behind []byte, err error) {
	s, err := Open(path, Options{})
	if err != nil {
		return nil, err
	}
	for n := range commits {
		if behind, err = os.ReadFile(path + witnessSuffix); err != nil {
			return nil, err
		}
		_, err = s.Commit(context.Background(), s.current.Load(), storetest.Entry(n), link.PutNetwork{Network: storetest.Network(n)})
		if err != nil {
			return nil, err
		}
	}
	return behind, s.Close()
}

// witnessAt returns an error unless the witness is of the revision.
func witnessAt(path string, want uint64) error {
	w, err := readWitness(path)
	if err != nil || w == nil || w.Revision != want {
		return fmt.Errorf("witness %+v, %v; want revision %d", w, err, want)
	}
	return nil
}

// childOpenFull opens a good state on a full disk: with its witness, without one, with one that has to be
// made anew, and with what a crash left.
func childOpenFull(dir string) error {
	if err := mountDisk(dir); err != nil {
		return err
	}
	path := filepath.Join(dir, "state")
	behind, err := stateOf(path, 2)
	if err != nil {
		return err
	}
	filler, err := fill(dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+witnessSuffix, nil, 0o600); err != nil { // a witness cut to nothing
		return err
	}
	for _, what := range []string{"damaged witness", "no witness"} {
		if filler, err = fill(dir); err != nil {
			return err
		}
		s, err := Open(path, Options{})
		if err != nil {
			return fmt.Errorf("%s: open: %w", what, err)
		}
		if got := s.current.Load().Revision(); got != 2 {
			return fmt.Errorf("%s: revision %d, want 2", what, got)
		}
		if err := s.Close(); err != nil {
			return fmt.Errorf("%s: close: %w", what, err)
		}
		if err := os.Remove(path + witnessSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := openFullLeftover(dir, path, filler); err != nil {
		return fmt.Errorf("leftover: %w", err)
	}
	if err := openFullBehind(path, behind); err != nil {
		return fmt.Errorf("witness behind: %w", err)
	}
	return openFullCommit(dir, path, filler)
}

// openFullLeftover: what a crash left fills the disk, and makes room for the witness.
func openFullLeftover(dir, path, filler string) error {
	if err := os.Remove(filler); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new-1234567", make([]byte, pageSize), 0o600); err != nil {
		return err
	}
	if _, err := fill(dir); err != nil {
		return err
	}
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	return errors.Join(witnessAt(path, 2), s.Close())
}

// openFullBehind: a witness that is there is overwritten where it is.
func openFullBehind(path string, behind []byte) error {
	f, err := os.OpenFile(path+witnessSuffix, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(behind, 0)
	if err := errors.Join(err, f.Close(), witnessAt(path, 1)); err != nil {
		return err
	}
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	return errors.Join(witnessAt(path, 2), s.Close())
}

// openFullCommit: the first commit that finds room makes the witness that the start couldn't.
func openFullCommit(dir, path, filler string) error {
	if err := os.Remove(path + witnessSuffix); err != nil {
		return err
	}
	if _, err := fill(dir); err != nil {
		return err
	}
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	if w, err := readWitness(path); w != nil || err != nil {
		return fmt.Errorf("witness %+v, %v: the disk isn't full", w, err)
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	for n := range 2 {
		_, err := s.Commit(context.Background(), s.current.Load(), storetest.Entry(90+n), link.PutNetwork{Network: storetest.Network(90 + n)})
		if err := errors.Join(err, witnessAt(path, uint64(3+n))); err != nil {
			return err
		}
	}
	if s.witness == nil {
		return errors.New("each commit makes a witness file anew")
	}
	return s.Close()
}

// childRead reads a state on a full disk and on one that can't be written to.
func childRead(dir string) error {
	if err := mountDisk(dir); err != nil {
		return err
	}
	path := filepath.Join(dir, "state")
	if _, err := stateOf(path, 2); err != nil {
		return err
	}
	if _, err := fill(dir); err != nil {
		return err
	}
	if err := os.Remove(path + witnessSuffix); err != nil { // nobody may make one
		return err
	}
	if _, err := fill(dir); err != nil {
		return err
	}
	if err := readUnchanged(dir, path); err != nil {
		return fmt.Errorf("full disk: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if _, err := Open(path, Options{}); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("open: %v, want EROFS", err)
	}
	if err := readUnchanged(dir, path); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	if _, err := Read(filepath.Join(dir, "other")); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read of no file: %v", err)
	}
	return nil
}

// readUnchanged reads a state of two commits and compares the directory before and after.
func readUnchanged(dir, path string) error {
	before, err := listing(dir)
	if err != nil {
		return err
	}
	snap, err := Read(path)
	if err != nil {
		return err
	}
	if snap.Revision() != 2 || snap.Network(storetest.Network(1).ID) == nil {
		return fmt.Errorf("%w: revision %d", store.ErrDamaged, snap.Revision())
	}
	after, err := listing(dir)
	if err == nil && !bytes.Equal(before, after) {
		err = fmt.Errorf("reading made of\n%s\n%s", before, after)
	}
	return err
}

func listing(dir string) (b []byte, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			return nil, err
		}
		b = fmt.Appendln(b, st.Name(), st.Mode(), st.Size(), st.ModTime())
	}
	return b, err
}
