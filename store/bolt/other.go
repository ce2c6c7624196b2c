//go:build !linux

package bolt

import (
	"errors"
	"fmt"
	"os"
)

// renameNew is for Linux.
func renameNew(from, to string) error {
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: errors.ErrUnsupported}
}

// holder names the process that has the lock of a file, as it has said itself.
func holder(_ *os.File, path string) string {
	if w, err := readWitness(path); err == nil && w != nil {
		return fmt.Sprintf("process %d (as it numbers itself)", w.PID)
	}
	return "another process"
}
