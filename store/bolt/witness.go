package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/store"
)

// witness is the file beside the state file: the last revision that Commit acknowledged. It is
// written after the transaction is on disk and before Commit returns, so whatever moment a process
// is killed at leaves it equal to the state file or one behind, never ahead. A witness ahead says
// that the state file lost commits: it was rolled back, or its newer meta page was damaged and bolt
// would silently go on with the older one. It isn't synced: after a power cut it may be some
// commits behind, which hides nothing but a second fault at that same moment.
type witness struct {
	Format   int    `json:"format"`
	File     string `json:"file"`
	Revision uint64 `json:"revision"`
	PID      int    `json:"pid"` // of the process that wrote it, for the message of a locked file
}

const (
	// witnessSize is the length of the witness file: within one sector, so that it is never torn,
	// and always the same, so that it is overwritten in place.
	witnessSize   = 256
	witnessSuffix = ".witness"
)

// readWitness returns the witness of a state file, nil where there is none. The error wraps
// store.ErrDamaged where it is there and unreadable as a witness.
func readWitness(path string) (*witness, error) {
	f, err := os.OpenFile(path+witnessSuffix, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold us up
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	return decodeWitness(f)
}

func decodeWitness(f *os.File) (*witness, error) {
	b, err := io.ReadAll(io.LimitReader(f, witnessSize+1))
	if err != nil {
		return nil, err
	}
	var w witness
	if err := store.Unseal(bytes.TrimRight(b, " \n"), &w); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if w.Format != anchorFormat {
		return nil, fmt.Errorf("%s: %w: format %d, this program knows %d", f.Name(), store.ErrForeign, w.Format, anchorFormat)
	}
	return &w, nil
}

// judge says whether a witness (nil: there is none) allows a state file with the given anchor.
// spare: one meta page of the file is unreadable.
func (w *witness) judge(a anchor, spare bool) error {
	switch {
	case w == nil && spare:
		return fmt.Errorf("%w: one meta page is unreadable, and no witness file says that nothing was lost", store.ErrDamaged)
	case w == nil:
		return nil
	case w.File != a.File:
		return fmt.Errorf("%w: the witness file beside it is of another state file", store.ErrDamaged)
	case w.Revision > a.Revision:
		return fmt.Errorf("%w: it is at revision %d, but revision %d was committed: it was rolled back or lost its last commits",
			store.ErrDamaged, a.Revision, w.Revision)
	}
	return nil
}

// openWitness makes the witness file say w and returns it. The one that is there is overwritten in place
// where it can be: that needs no room on the disk.
func openWitness(path string, w witness) (*os.File, error) {
	b, err := w.encode()
	if err != nil {
		return nil, err
	}
	f, err := ownWitness(path, w.File)
	if err == nil {
		if err = writeSynced(f, b); err == nil {
			return f, nil
		}
		_ = f.Close() // a new one instead
	}
	return newWitness(path, b)
}

// ownWitness opens the witness file of the state file with the given mark. The error says why there is none
// that can be overwritten: it is damaged, or another name of a file that isn't ours to write to.
func ownWitness(path, mark string) (*os.File, error) {
	f, err := os.OpenFile(path+witnessSuffix, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := checkWitness(f, mark); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func checkWitness(f *os.File, mark string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Size != witnessSize {
		return fmt.Errorf("%w: not a plain file of %d bytes with one name", store.ErrForeign, witnessSize)
	}
	w, err := decodeWitness(f)
	if err != nil {
		return err
	}
	if w.File != mark {
		return fmt.Errorf("%w: of another state file", store.ErrForeign)
	}
	if st.Mode&0o077 != 0 {
		return f.Chmod(0o600)
	}
	return nil
}

// newWitness makes a witness file that holds b, and gives it its name when it is on disk.
func newWitness(path string, b []byte) (*os.File, error) {
	f, err := os.CreateTemp(dirOf(path), baseOf(path)+witnessSuffix+newSuffix+"*")
	if err != nil {
		return nil, err
	}
	if err = writeSynced(f, b); err == nil {
		err = os.Rename(f.Name(), path+witnessSuffix)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func writeSynced(f *os.File, b []byte) error {
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

func (w witness) encode() ([]byte, error) {
	b, err := store.Seal(w)
	if err != nil {
		return nil, err
	}
	if len(b) >= witnessSize {
		return nil, fmt.Errorf("witness of %d bytes", len(b))
	}
	line := bytes.Repeat([]byte{' '}, witnessSize)
	copy(line, b)
	line[witnessSize-1] = '\n'
	return line, nil
}
