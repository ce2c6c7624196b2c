package link

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// HostName returns the name that an address of the service has (RFC 1035 section 3.5): the private one of the first of its names that
// is no pattern, or its public one where it has no private one; "" where all are patterns.
func (s *Service) HostName() Name {
	for _, n := range s.Names {
		name := n.Private
		if name == "" {
			name = n.Public
		}
		if !strings.HasPrefix(string(name), "*") {
			return name
		}
	}
	return ""
}

// ParseReverse returns the address of a whole reverse name in canonical form (RFC 1035 section 3.5,
// RFC 3596 section 2.5).
func ParseReverse(asked []byte) (netip.Addr, bool) {
	if rest, ok := bytes.CutSuffix(asked, []byte(".in-addr.arpa")); ok {
		var b [4]byte
		labels := strings.Split(string(rest), ".")
		if len(labels) != len(b) {
			return netip.Addr{}, false
		}
		for i, l := range labels {
			n, err := strconv.ParseUint(l, 10, 8)
			if err != nil || strconv.FormatUint(n, 10) != l {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := bytes.CutSuffix(asked, []byte(".ip6.arpa"))
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(string(rest[2*i:2*i+1]), 16, 4)
		if err != nil || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
