package external

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter of system calls allows what it doesn't know: it is beside landlock, for what that can't say.
//
//   - A program starts no processes. None is left then when it is killed, wherever it would have hidden it.
//   - It can't take back that it dies with the node, nor leave its process group.
//   - It signals, traces and reads nobody but itself.
//   - Without a network it has sockets of its own family only, connects to nothing and sends to no name, which
//     holds for datagrams, raw sockets, Multipath TCP and other families as well.
//   - It holds no memory beside that which RLIMIT_DATA counts.

// refusal is a system call that is refused, always or by one of its arguments.
type refusal struct {
	call  uintptr
	errno unix.Errno
	// where: refused only if argument arg, masked, is value; unless: if it isn't. Both false: always.
	where, unless bool
	arg           int
	mask, value   uint32
}

// always refuses calls whatever their arguments are.
func always(calls ...uintptr) []refusal {
	var all []refusal
	for _, c := range calls {
		all = append(all, refusal{call: c, errno: unix.EPERM})
	}
	return all
}

// refusals returns what a program with the process ID pid may not do.
func refusals(network bool, pid uint32) []refusal {
	all := []refusal{
		{call: unix.SYS_CLONE, errno: unix.EPERM, unless: true, arg: 0, mask: unix.CLONE_THREAD, value: unix.CLONE_THREAD},
		{call: unix.SYS_CLONE3, errno: unix.ENOSYS}, // its flags can't be seen; libraries then take clone
		{call: unix.SYS_KILL, errno: unix.EPERM, unless: true, arg: 0, mask: ^uint32(0), value: pid},
		{call: unix.SYS_TGKILL, errno: unix.EPERM, unless: true, arg: 0, mask: ^uint32(0), value: pid},
		{call: unix.SYS_PRCTL, errno: unix.EPERM, where: true, arg: 0, mask: ^uint32(0), value: unix.PR_SET_PDEATHSIG},
		{call: unix.SYS_MMAP, errno: unix.EPERM, where: true, arg: 3, mask: unix.MAP_SHARED | unix.MAP_ANONYMOUS, value: unix.MAP_SHARED | unix.MAP_ANONYMOUS},
	}
	all = append(all, always(
		unix.SYS_SETSID, unix.SYS_SETPGID,
		unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
		unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_MOUNT_SETATTR,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT,
		unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
	)...)
	all = append(all, always(oldCalls...)...)
	if network {
		return all
	}
	for _, call := range []uintptr{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		all = append(all,
			refusal{call: call, errno: unix.EACCES, unless: true, arg: 0, mask: ^uint32(0), value: unix.AF_UNIX},
			refusal{call: call, errno: unix.EACCES, unless: true, arg: 1, mask: 0xf, value: unix.SOCK_STREAM})
	}
	return append(all, refusal{call: unix.SYS_CONNECT, errno: unix.EACCES})
}

// Offsets in struct seccomp_data of linux/seccomp.h. Both architectures that have a filter are little-endian.
const (
	dataCall = 0
	dataArch = 4
	dataArgs = 16
)

// assemble returns the filter: each refusal by itself, so that its jumps are short.
func assemble(all []refusal) []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }

	f := []unix.SockFilter{load(dataArch), equal(auditArch, 1, 0), ret(unix.SECCOMP_RET_KILL_PROCESS)}
	f = append(f, load(dataCall),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: foreignCalls, Jt: 0, Jf: 1}, ret(unix.SECCOMP_RET_KILL_PROCESS))
	for _, r := range all {
		no := ret(unix.SECCOMP_RET_ERRNO | uint32(r.errno))
		if !r.where && !r.unless {
			f = append(f, equal(uint32(r.call), 0, 1), no)
			continue
		}
		// Another call skips to the load of the number at the end, which the next rule needs.
		f = append(f, equal(uint32(r.call), 0, 5), load(uint32(dataArgs+8*r.arg)),
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: r.mask})
		if r.where {
			f = append(f, equal(r.value, 0, 1))
		} else {
			f = append(f, equal(r.value, 1, 0))
		}
		f = append(f, no, load(dataCall))
	}
	return append(f, ret(unix.SECCOMP_RET_ALLOW))
}

// filter puts the filter in force for this thread and what it executes; on an architecture that has none it
// does nothing.
func filter(network bool) error {
	if auditArch == 0 {
		return nil
	}
	f := assemble(refusals(network, uint32(os.Getpid())))
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if _, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0, 0); e != 0 {
		return fmt.Errorf("filter of system calls: %w", e)
	}
	return nil
}
