package bolt

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// newSuffix is in the name of a file that is still being made, before a number from os.CreateTemp.
const newSuffix = ".new-"

// unfinished matches what may follow the name of a state file in that of a file that a crash left half made:
// of the state file, of its witness, or of those of a state that was to replace it.
var unfinished = regexp.MustCompile(`^(\.witness)?\.new-[0-9]+(\.witness(\.new-[0-9]+)?)?$`)

// sweep removes what a process that crashed left of files in the making. The caller holds the lock of the state
// file: so nobody makes a witness, and whoever is making a state file finds this one in its place. A failure
// isn't one of the caller, only worth a line.
func sweep(path string, log *slog.Logger) {
	entries, err := os.ReadDir(dirOf(path))
	if err != nil {
		log.Warn("can't look for files that a crash left beside the state file", "path", path, "error", err)
	}
	for _, e := range entries {
		suffix, ours := strings.CutPrefix(e.Name(), baseOf(path))
		if !ours || !unfinished.MatchString(suffix) || !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(dirOf(path), e.Name())
		// Not os.Remove, which would take an empty directory too.
		if err := unix.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("a file that a crash left beside the state file can't be removed", "path", name, "error", err)
			continue
		}
		log.Info("removed a file that a crash left beside the state file", "path", name)
	}
}
