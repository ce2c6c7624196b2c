package external

import "golang.org/x/sys/unix"

// auditArch is the architecture whose system calls the filter knows; others are the end of the program.
const auditArch = unix.AUDIT_ARCH_X86_64

// foreignCalls is where the numbers of x32 begin, the same calls under other numbers.
const foreignCalls = 0x40000000

// oldCalls are those that other architectures don't have.
var oldCalls = []uintptr{unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_MODIFY_LDT}
