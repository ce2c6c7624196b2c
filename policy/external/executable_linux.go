package external

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxExecutable is the largest executable, in bytes: it is held in memory.
const maxExecutable = 512 << 20

// memoryName is what the copy is called in /proc.
const memoryName = "postern-policy"

// executable is the checked copy of a program, in memory that nobody can change any more.
type executable struct {
	file   *os.File // read only
	script bool
}

// openExecutable copies a file into sealed memory and hashes what it copies. The file is opened once: what is
// checked, kept and run are the same bytes, whoever may write to the file.
func openExecutable(path string, checksum [sha256.Size]byte) (*executable, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s: the path of a program is absolute", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe isn't waited for
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch st, err := f.Stat(); {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case st.Mode()&0o111 == 0:
		return nil, fmt.Errorf("%s: not executable: %w", path, os.ErrPermission)
	case st.Size() > maxExecutable:
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxExecutable)
	}
	return copyExecutable(f, checksum)
}

func copyExecutable(f *os.File, checksum [sha256.Size]byte) (*executable, error) {
	// A process that was forked meanwhile would have it open for writing until it executes, and what is open
	// for writing can't be executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	m, err := newMemory()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	h, first := sha256.New(), [2]byte{}
	if _, err := io.Copy(io.MultiWriter(h, m), io.LimitReader(f, maxExecutable)); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(h.Sum(nil), checksum[:]) != 1 {
		return nil, fmt.Errorf("%s: its SHA-256 is %x and should be %x", f.Name(), h.Sum(nil), checksum)
	}
	if _, err := m.ReadAt(first[:], 0); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if err := seal(m.Fd(), seals); err != nil {
		return nil, fmt.Errorf("seal the copy of %s: %w", f.Name(), err)
	}
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
	if err != nil {
		return nil, fmt.Errorf("copy of %s: %w", f.Name(), err)
	}
	return &executable{file: ro, script: string(first[:]) == "#!"}, nil
}

// newMemory returns an empty file in memory that may be executed, where the kernel allows that.
func newMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before 6.3, where it always may
		fd, err = unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("copy in memory (see vm.memfd_noexec): %w", err)
	}
	return os.NewFile(uintptr(fd), memoryName), nil
}

// close frees the memory once no process runs from it.
func (e *executable) close() { e.file.Close() }

// seal seals a copy. The kernel refuses with EBUSY while anybody in it holds a page, as who looks for memory to give away does for a moment
// (F_ADD_SEALS of fcntl(2)).
func seal(fd uintptr, seals int) (err error) {
	for range 50 {
		if _, err = unix.FcntlInt(fd, unix.F_ADD_SEALS, seals); err != unix.EBUSY {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
