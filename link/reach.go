package link

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Where the bytes of a service may go. A backend is the one of the tenant whose service had it first, as a
// public name is: else a tenant would reach with a service of its own what another gives out by approval.

// enterBackends counts what a service sends to or from, d is 1 or -1. The key is an address and the tenant.
func (t *tx) enterBackends(v *Service, d int) {
	for a := range v.backends() {
		t.changes.note(ofBackends, addrKey(a))
		add(&t.next.backends, append(addrKey(a), v.Tenant...), d)
	}
}

// backends yields the addresses of targets and NAT in every form.
func (s *Service) backends() func(yield func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		for _, target := range s.Targets {
			for _, a := range Forms(target.Addr.Addr()) {
				if !yield(a) {
					return
				}
			}
		}
		for _, a := range s.NAT {
			if !yield(a) {
				return
			}
		}
	}
}

// BackendOfAnother reports whether a service of another tenant sends to the address or from it.
func (s *Snapshot) BackendOfAnother(tenant string, a netip.Addr) bool {
	key := addrKey(a)
	s.watch.read(ofBackends, key)
	backends := s.backends
	backends.watched(nil, notTraced) // that is all there is to note
	for k := range backends.all(key) {
		if k[len(key):] != tenant {
			return true
		}
	}
	return false
}

// checkBackends refuses targets and NAT addresses that are new to a service, old being what it was, and
// that a service of another tenant has. The operator and who was granted the address may have them.
func (t *tx) checkBackends(old, v *Service) error {
	if v.Tenant == "" || t.loading {
		return nil
	}
	had := map[netip.Addr]bool{}
	if old != nil && old.Tenant == v.Tenant {
		for a := range old.backends() {
			had[a] = true
		}
	}
	for a := range v.backends() {
		if !had[a] && !v.granted(a) && t.next.BackendOfAnother(v.Tenant, a) {
			return fmt.Errorf("%w: address %s is in use", ErrConflict, a)
		}
	}
	return nil
}

// granted reports whether the tenant of a service was given an address by name.
func (s *Service) granted(a netip.Addr) bool {
	return slices.ContainsFunc(s.Reach, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Forms returns an address and the IPv4 addresses that a gateway or host may take it for: of IPv4-mapped
// and -compatible addresses (RFC 4291 section 2.5.5), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo
// (RFC 4380) and ISATAP (RFC 5214).
func Forms(a netip.Addr) []netip.Addr {
	a = a.Unmap()
	all := []netip.Addr{a}
	if !a.Is6() {
		return all
	}
	b := a.As16()
	four := func(at int) { all = append(all, netip.AddrFrom4([4]byte(b[at:at+4]))) }
	switch {
	case binary.BigEndian.Uint64(b[:8]) == 0 && binary.BigEndian.Uint32(b[8:12]) == 0 && a != netip.IPv6Unspecified() && a != netip.IPv6Loopback():
		four(12)
	case nat64.Contains(a), nat64Local.Contains(a):
		four(12)
	case sixToFour.Contains(a):
		four(2)
	case teredo.Contains(a):
		four(4)
		for i := range 4 { // the client's, with its bits turned over
			b[12+i] ^= 0xff
		}
		four(12)
	}
	if id := binary.BigEndian.Uint32(b[8:12]); id&^0x02000000 == 0x00005efe {
		four(12)
	}
	return all
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
)
