package external

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// placePattern is what the directories of sockets are called, below the one for temporary files.
const placePattern = "postern-policy-*"

// maxTemp is how many bytes the path of the directory for temporary files may have. That of a socket has 107 at most,
// of which the directories in between and its own name take 64.
const maxTemp = 43

// place is a directory for the socket of one run. Who made it holds a lock on it for as long as it lives, so
// that what a killed node has left is known for that.
type place struct {
	path string
	lock *os.File
}

// newPlace makes a directory that the program's user may pass through; what the program has is below.
func newPlace() (*place, error) {
	if dir := os.TempDir(); len(dir) > maxTemp {
		return nil, fmt.Errorf("%s, the directory for temporary files, has a path too long for sockets in it: set TMPDIR to one of at most %d bytes", dir, maxTemp)
	}
	path, err := os.MkdirTemp("", placePattern)
	if err != nil {
		return nil, err
	}
	p := &place{path: path}
	if p.lock, err = os.Open(path); err == nil {
		err = unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Chmod(path, 0o711) // last: sweep looks at no other
	}
	if err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

// remove removes it. What can't be removed is empty, and in the directory for such things.
func (p *place) remove() {
	os.RemoveAll(p.path)
	if p.lock != nil {
		p.lock.Close()
	}
}

// sweep removes what nodes of our user have left that were killed.
func sweep() {
	all, _ := filepath.Glob(filepath.Join(os.TempDir(), placePattern)) // the pattern is a good one
	for _, path := range all {
		p := &place{path: path}
		st, err := os.Lstat(path)
		if err != nil || !st.IsDir() || st.Mode().Perm() != 0o711 { // not one whose maker is about to lock it
			continue
		}
		if own, ok := st.Sys().(*syscall.Stat_t); !ok || int(own.Uid) != os.Geteuid() {
			continue
		}
		if p.lock, err = os.Open(path); err != nil {
			continue
		}
		if unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			p.lock.Close()
			continue
		}
		p.remove()
	}
}
