package node

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"syscall"
)

// owners accepts connections of whoever may open the socket, but for policy programs. Where a node isn't root its
// programs run as the same user, and no sandbox keeps one that has the network from a Unix socket: landlock and
// seccomp know nothing of their paths.
type owners struct{ *net.UnixListener }

// Accept implements [net.Listener].
func (l owners) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if !ofProgram(c) {
			return c, nil
		}
		c.Close()
	}
}

// ofProgram reports whether a peer is a policy program of this process: a child that can get no new privileges,
// which the launcher gives up for it. A program starts no others. A peer that can't be known is none of ours where
// it is of another namespace of processes, and counts as one where it has ended meanwhile.
func ofProgram(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var peer *syscall.Ucred
	if e := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); e != nil || err != nil {
		return true
	}
	if peer.Pid == 0 {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", peer.Pid))
	if err != nil {
		return true
	}
	return bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", os.Getpid())) && bytes.Contains(status, []byte("\nNoNewPrivs:\t1\n"))
}
