package external

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a program needs of the system beside its executable: libraries of one that is linked dynamically,
// certificates and time zones; with a network, how names are found. Those that aren't there are left out.
var (
	systemFiles = []string{
		"/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
		"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
		"/usr/share/zoneinfo", "/etc/localtime", "/dev/null", "/dev/urandom", "/dev/random",
	}
	networkFiles = []string{
		"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services",
		"/run/systemd/resolve",
	}
)

// Rights of landlock, by the version of its interface that they came with.
const (
	fsRead  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	fsDir   = unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsFirst = fsRead | fsDir | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	// What a program does to have its socket: make a file of a name that nobody has, remove it, bind.
	fsSocket = fsDir | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
)

// rulePathBeneath is LANDLOCK_RULE_PATH_BENEATH of linux/landlock.h.
const rulePathBeneath = 1

// ruleset is a sandbox of landlock that isn't in force yet. The zero one, of a kernel without, restricts nothing.
type ruleset struct{ fd int }

// landlockVersion returns the version of the kernel's landlock, 0 for none.
func landlockVersion() int {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(v)
}

// openRuleset makes the sandbox of a program, as far as this kernel can have it.
func openRuleset(o *order) (ruleset, error) {
	version := landlockVersion()
	if version == 0 {
		return ruleset{}, nil
	}
	// What isn't named is refused: each right that the kernel knows is handled, and few are given.
	a := unix.LandlockRulesetAttr{Handled_access_fs: fsFirst}
	if version >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 4 && !o.Network {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if version >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	size := unsafe.Offsetof(a.Handled_access_net)
	if version >= 4 {
		size = unsafe.Offsetof(a.Scoped)
	}
	if version >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size = unsafe.Offsetof(a.Quiet_access_fs)
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&a)), size, 0)
	if e != 0 {
		return ruleset{}, fmt.Errorf("landlock: %w", e)
	}
	r := ruleset{int(fd)}
	return r, r.allow(o)
}

// allow adds what the program may have.
func (r ruleset) allow(o *order) error {
	if err := r.add(o.Socket, fsSocket); err != nil {
		return err
	}
	files := systemFiles
	if o.Network {
		files = append(files[:len(files):len(files)], networkFiles...)
	}
	for _, f := range files {
		if err := r.add(f, fsRead|fsDir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, f := range o.Files {
		if err := r.add(f, fsRead|fsDir); err != nil {
			return err
		}
	}
	return r.add("/dev/null", unix.LANDLOCK_ACCESS_FS_WRITE_FILE|unix.LANDLOCK_ACCESS_FS_READ_FILE)
}

// add gives rights on a path and all below it. A file gets those that files have.
func (r ruleset) add(path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "allow", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "allow", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	}
	a := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), rulePathBeneath, uintptr(unsafe.Pointer(&a)), 0, 0, 0); e != 0 {
		return &os.PathError{Op: "allow", Path: path, Err: e}
	}
	return nil
}

// restrict puts the sandbox in force for this thread and what it executes.
func (r ruleset) restrict() error {
	if r.fd == 0 {
		return nil
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); e != 0 {
		return fmt.Errorf("landlock: %w", e)
	}
	return nil
}
