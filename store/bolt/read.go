package bolt

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
)

// Read returns the state of the file at path without opening a store: it makes the checks of [Open], and
// writes nothing, so that it needs neither the right nor the room to. Others may read at the same time; it
// waits less than two seconds for a store that has the file open. Errors wrap [store.ErrLocked],
// [store.ErrDamaged], [store.ErrForeign], or are those of the file system.
func Read(path string) (*link.Snapshot, error) {
	f, err := openLocked(path, os.O_RDONLY|unix.O_NONBLOCK, unix.LOCK_SH) // a pipe must not hold us up
	if err != nil {
		return nil, refusal(path, err)
	}
	defer f.Close()
	c, err := readFile(f, path, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, refusal(path, err)
	}
	return c.snapshot, nil
}
