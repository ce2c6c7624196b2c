package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetAside renames the state file at path, which [Open] refused, and its witness, so that a new one
// can be made. It returns the file's new name, which has the time in it; nothing is overwritten. The
// error is that of the file system.
func SetAside(path string, at time.Time) (string, error) {
	aside := path + ".damaged-" + at.UTC().Format("20060102T150405.000Z")
	for _, suffix := range []string{"", witnessSuffix} {
		err := unix.Renameat2(unix.AT_FDCWD, path+suffix, unix.AT_FDCWD, aside+suffix, unix.RENAME_NOREPLACE)
		if err != nil && !(errors.Is(err, fs.ErrNotExist)) {
			return "", fmt.Errorf("set aside %s: %w", path+suffix, os.NewSyscallError("renameat2", err))
		}
	}
	return aside, nil
}
