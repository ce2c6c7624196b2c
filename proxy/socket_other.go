//go:build !linux

package proxy

import (
	"net"
	"syscall"
)

// On other systems the connections keep the defaults of the net package, and NAT addresses must be
// addresses of the host.

func listenOptions(_, _ string, _ syscall.RawConn) error { return nil }

func dialOptions(bool) func(_, _ string, _ syscall.RawConn) error { return listenOptions }

// sever is [reset]: it may wait for readers and writers.
func sever(c *net.TCPConn) { reset(c) }

// acknowledged isn't known here.
func acknowledged(*net.TCPConn) uint64 { return 0 }

func descriptorLimit() int { return 10240 }
