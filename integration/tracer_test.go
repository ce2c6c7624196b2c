package integration

import (
	endian "encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// audited are the machines whose system calls trapClock knows, as seccomp(2) names them.
var audited = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// trapClock has the calls clock_gettime(CLOCK_REALTIME) of this thread, and of what it starts, stop for a tracer. All
// others are as fast as ever.
func trapClock() error {
	arch, known := audited[runtime.GOARCH]
	if !known {
		return fmt.Errorf("system calls of %s aren't known here", runtime.GOARCH)
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		give  = unix.BPF_RET | unix.BPF_K
	)
	// Offsets in struct seccomp_data: number 0, machine 4, low half of the first argument 16.
	filter := []unix.SockFilter{
		{Code: load, K: 4}, {Code: equal, K: arch, Jf: 5},
		{Code: load, K: 0}, {Code: equal, K: unix.SYS_CLOCK_GETTIME, Jf: 3},
		{Code: load, K: 16}, {Code: equal, K: unix.CLOCK_REALTIME, Jf: 1},
		{Code: give, K: unix.SECCOMP_RET_TRACE},
		{Code: give, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("filter of system calls: %w", err)
	}
	return nil
}

// call is struct ptrace_syscall_info (ptrace(2)), which is the same on every machine.
type call struct {
	op     uint8
	_      [3]byte
	arch   uint32
	ip, sp uint64
	number uint64
	args   [6]uint64
	more   uint64
}

// systemCall returns where a stopped thread is, and the system call that it is in.
func systemCall(pid int) (c call, err error) {
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(pid), unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)), 0, 0)
	if e != 0 {
		return c, fmt.Errorf("look at a system call: %w", e)
	}
	return c, nil
}

// hideVDSO takes from a program that is about to begin what the kernel tells of the vDSO (vdso(7)), so that it asks
// for the time by system calls.
func hideVDSO(pid int) error {
	c, err := systemCall(pid)
	if err != nil {
		return err
	}
	// getauxval(3): behind the arguments and the environment, each with a null behind it, are pairs of type and value.
	const end, ignore, vdso = 0, 1, 33
	at := uintptr(c.sp) + 8 // behind the number of arguments
	for nulls := 0; nulls < 2; at += 8 {
		v, err := word(pid, at)
		if err != nil {
			return err
		}
		if v == 0 {
			nulls++
		}
	}
	for ; ; at += 16 {
		v, err := word(pid, at)
		switch {
		case err != nil:
			return err
		case v == end:
			return nil
		case v == vdso:
			_, err := unix.PtracePokeData(pid, at, endian.NativeEndian.AppendUint64(nil, ignore))
			return err
		}
	}
}

func word(pid int, at uintptr) (uint64, error) {
	var b [8]byte
	if _, err := unix.PtracePeekData(pid, at, b[:]); err != nil {
		return 0, fmt.Errorf("read the stack: %w", err)
	}
	return endian.NativeEndian.Uint64(b[:]), nil
}
