//go:build !linux

package proxy

import (
	"errors"
	"net/netip"
	"syscall"
)

// On other systems the connections keep the defaults of the net package, and NAT addresses must be
// addresses of the host.

func listenOptions(_, _ string, _ syscall.RawConn) error { return nil }

func dialOptions(_ uintptr, nat, speaks bool) error { return nil }

func fastOpen(_ uintptr, waiting int) error {
	if waiting == 0 {
		return nil
	}
	return errors.ErrUnsupported
}

func keep(controlled) {}

func datagramOptions(uintptr, bool) error { return nil }

// acknowledged isn't known here.
func acknowledged(controlled) uint64 { return 0 }

// canWarm: nobody looks whether a connection has ended, so none is kept ready.
const canWarm = false

func unended(controlled) bool { return false }

// localAddress isn't asked for here, nor is localPorts: connections have the defaults of the net package.
func localAddress(controlled) (a netip.Addr) { return a }

func localPorts() int { return 0 }

func descriptorLimit() int { return 10240 }
