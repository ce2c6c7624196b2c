package bolt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/wholefile"
	"github.com/postern-link/postern/store"
)

// How long Open waits for the lock of a file that another process has, and between two tries.
const (
	lockTimeout = 1500 * time.Millisecond
	lockRetry   = 25 * time.Millisecond
)

// The buckets of a state file.
var (
	bucketAudit   = []byte("audit")   // revision, eight bytes big-endian -> line of store.Chain
	bucketMeta    = []byte("meta")    // keyAnchor -> anchor
	bucketObjects = []byte("objects") // kind/key -> record of package store
	keyAnchor     = []byte("anchor")
)

func dirOf(path string) string  { return filepath.Dir(path) }
func baseOf(path string) string { return filepath.Base(path) }

// refusal says what a state file that can't be used means for whoever starts the process.
func refusal(path string, err error) error {
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrForeign) {
		return fmt.Errorf("state file %s: %w; restore a backup with \"postern restore\", or move %s and %s away to start empty on purpose",
			path, err, path, baseOf(path)+witnessSuffix)
	}
	return fmt.Errorf("state file %s: %w", path, err)
}

// create makes a new, empty state file unless there is one. The file gets its name when it is complete
// and on disk, so that no crash leaves one that the next start refuses.
func create(path string, log *slog.Logger) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	w, err := readWitness(path)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	if w != nil && w.Revision > 0 {
		return fmt.Errorf("%w: it is gone, but revision %d was committed to it", store.ErrDamaged, w.Revision)
	}
	f, err := os.CreateTemp(dirOf(path), baseOf(path)+newSuffix+"*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer os.Remove(tmp)
	if err := f.Close(); err != nil {
		return err
	}
	if err = initialise(tmp); err == nil {
		err = publish(tmp, path)
	}
	if _, statErr := os.Stat(path); err != nil && statErr == nil {
		return nil // another process was faster, and may have swept ours away: its file is as good
	}
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	log.Info("created an empty state file", "path", path)
	return nil
}

// initialise writes an empty state into the empty file at path and syncs it.
func initialise(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, FreelistType: bbolt.FreelistMapType, Timeout: lockTimeout})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketAudit, bucketMeta, bucketObjects} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		a, err := store.Seal(anchor{Format: anchorFormat, File: rand.Text()})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyAnchor, a)
	})
	return errors.Join(err, db.Close())
}

// publish gives the file tmp the name path for good, unless that exists: then the error is os.ErrExist.
func publish(tmp, path string) error {
	if err := nameNew(tmp, path); err != nil {
		return err
	}
	return wholefile.SyncDir(path)
}

// nameNew gives a file a new name, and leaves it the old one where it can have both. The error is
// os.ErrExist where there is a file of that name.
func nameNew(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, unix.EPERM) || errors.Is(err, errors.ErrUnsupported) { // no hard links here
		return renameNew(from, to)
	}
	return err
}

// openDB opens an existing state file: locks it, reads and checks all of it, and only then hands the
// same descriptor to bbolt.
func openDB(path string, log *slog.Logger) (*bbolt.DB, *contents, error) {
	var c *contents
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		PageSize:     pageSize,
		FreelistType: bbolt.FreelistMapType,
		OpenFile: func(path string, _ int, _ os.FileMode) (*os.File, error) {
			f, err := lockFile(path)
			if err != nil {
				return nil, err
			}
			if c, err = readFile(f, path, log); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		},
	})
	if err != nil {
		return nil, nil, err
	}
	return db, c, nil
}

// lockFile opens and locks the file at path for writing, which must exist: bbolt would make an empty one.
func lockFile(path string) (*os.File, error) {
	f, err := openLocked(path, os.O_RDWR, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	if err := restrict(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// A process that was killed may have left its last commit in the kernel alone. What we are going to
	// read, and tell the witness, must be what a power cut would leave.
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openLocked opens the plain file at path and locks it: how is unix.LOCK_EX or unix.LOCK_SH.
func openLocked(path string, flags, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(f, how); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w by %s", store.ErrLocked, holder(f, path))
		}
		return nil, errors.Join(err, f.Close())
	}
	if err := checkPlain(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func lock(f *os.File, how int) error {
	deadline := time.Now().Add(lockTimeout)
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(lockRetry)
	}
}

// checkPlain refuses what isn't a plain file, or has another name by now.
func checkPlain(f *os.File, path string) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no plain file", store.ErrForeign)
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(st, named) {
		return fmt.Errorf("%w: it was replaced while it was opened", store.ErrLocked)
	}
	return nil
}

// restrict takes other users' rights away: aliases are secrets.
func restrict(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return fmt.Errorf("take other users' rights away: %w", err)
		}
	}
	return nil
}
