//go:build !linux

package proxy

import "syscall"

// On other systems the connections keep the defaults of the net package, and NAT addresses must be
// addresses of the host.

func listenOptions(_, _ string, _ syscall.RawConn) error { return nil }

func dialOptions(bool) func(_, _ string, _ syscall.RawConn) error { return listenOptions }

func descriptorLimit() int { return 10240 }
