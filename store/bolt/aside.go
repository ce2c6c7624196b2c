package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/wholefile"
	"github.com/postern-link/postern/store"
)

// Replace puts a new state file, which fill commits to, in the place of the one at path that [Open] refused. The
// old one and its witness are kept: it returns the old one's new name, which has the time in it; nothing is
// overwritten. The new file is complete before the old one is touched, and after an error, or a crash at
// any moment, Open refuses what it refused before, or finds the new state: never an empty one. Errors are those of
// fill, of Open or of the file system; [store.ErrLocked] where the old one is in use or was replaced meanwhile.
func Replace(path string, at time.Time, fill func(*Store) error) (string, error) {
	old, err := openLocked(path, os.O_RDWR, unix.LOCK_EX)
	if err == nil {
		defer old.Close()
		if _, err := readFile(old, path, slog.New(slog.DiscardHandler)); err == nil {
			return "", fmt.Errorf("replace %s: %w: it is no longer a damaged file", path, store.ErrLocked)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("replace %s: %w", path, err)
	}
	fresh, err := prepare(path, fill)
	if fresh != "" {
		defer os.Remove(fresh)
		defer os.Remove(fresh + witnessSuffix)
	}
	if err != nil {
		return "", fmt.Errorf("replace %s: %w", path, err)
	}
	aside := path + ".damaged-" + at.UTC().Format("20060102T150405.000Z")
	if err := takePlace(fresh, path, aside); err != nil {
		return "", fmt.Errorf("replace %s: %w", path, err)
	}
	return aside, nil
}

// prepare makes a complete state file and its witness under a name that is swept after a crash.
func prepare(path string, fill func(*Store) error) (fresh string, err error) {
	f, err := os.CreateTemp(dirOf(path), baseOf(path)+newSuffix+"*")
	if err != nil {
		return "", err
	}
	fresh = f.Name()
	if err := errors.Join(f.Close(), initialise(fresh)); err != nil {
		return fresh, err
	}
	s, err := Open(fresh, Options{})
	if err != nil {
		return fresh, err
	}
	return fresh, errors.Join(fill(s), s.Close())
}

// takePlace gives the files at fresh the names of those at path, and these the names at aside. Each step leaves
// what Open refuses: the new witness beside the damaged file, the new witness alone. A step that fails
// undoes those before it.
func takePlace(fresh, path, aside string) error {
	kept, err := keepWitness(path, aside)
	if err != nil {
		return err
	}
	if err := os.Rename(fresh+witnessSuffix, path+witnessSuffix); err != nil {
		return errors.Join(err, putBackWitness(path, aside, kept))
	}
	moved := true
	if err := renameNew(path, aside); errors.Is(err, fs.ErrNotExist) {
		moved = false // the state was gone, and only its witness there
	} else if err != nil {
		return errors.Join(err, putBackWitness(path, aside, kept))
	}
	if err := nameNew(fresh, path); err != nil {
		if moved {
			err = errors.Join(err, renameNew(aside, path))
		}
		return errors.Join(err, putBackWitness(path, aside, kept))
	}
	return wholefile.SyncDir(path)
}

// keepWitness gives the witness at path the name at aside as well, or instead where a file can't have two. It
// reports whether there was one.
func keepWitness(path, aside string) (bool, error) {
	err := nameNew(path+witnessSuffix, aside+witnessSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// putBackWitness undoes keepWitness, and what took the witness's place.
func putBackWitness(path, aside string, kept bool) error {
	if !kept {
		return ignoreMissing(os.Remove(path + witnessSuffix))
	}
	if err := os.Rename(aside+witnessSuffix, path+witnessSuffix); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(aside + witnessSuffix)) // two names of one file: rename does nothing
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
