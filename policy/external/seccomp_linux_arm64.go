package external

import "golang.org/x/sys/unix"

// auditArch is the architecture whose system calls the filter knows; others are the end of the program.
const auditArch = unix.AUDIT_ARCH_AARCH64

// foreignCalls is above every number.
const foreignCalls = 0x40000000

var oldCalls []uintptr
