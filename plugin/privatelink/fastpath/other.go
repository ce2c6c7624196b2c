//go:build !linux

package fastpath

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

var errSystem = errors.New("this needs Linux")

// Supported reports whether this system has what the package needs.
func Supported() bool { return false }

// Usable is for Linux.
func Usable() error { return errSystem }

// Inherit is for Linux.
func Inherit(c *net.UDPConn, _ int) { c.Close() }

// DropInherited is for Linux.
func DropInherited() {}

// Owns is for Linux.
func Owns(int) (int, bool) { return 0, false }

// Hold is for Linux.
func Hold() (release func()) { return func() {} }

// Wildcard is for Linux.
func Wildcard() netip.Addr { return netip.IPv6Unspecified() }

// Group is for Linux.
type Group struct{}

// Open is for Linux.
func Open(netip.AddrPort, *Target) (*Group, error) { return nil, errSystem }

// Use is for Linux.
func (*Group) Use(*Target) *Target { return nil }

// Target is for Linux.
func (*Group) Target() *Target { return nil }

// Steer is for Linux.
func (*Group) Steer(int, func()) error { return errSystem }

// Retreated is for Linux.
func (*Group) Retreated() bool { return false }

// Leave is for Linux.
func (*Group) Leave() {}

// Close is for Linux.
func (*Group) Close(time.Duration) {}
