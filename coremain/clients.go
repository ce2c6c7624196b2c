package coremain

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// CoreDNS bounds neither how many connections its clients have, nor how long one may leave its answers unread (D20). It gives out neither its
// listeners nor what they accept, so the bounds are kept beside it, by the descriptors of this process.

// stallTime is how long a client of DNS by TCP, TLS or HTTPS may take nothing of its answers before its connection ends: what CoreDNS has as the
// time for a write, which the library under it sets on no connection.
const stallTime = 5 * time.Second

// How many connections of clients there may be: a share of the descriptors that the process may have, and of its memory, which leave most to
// flows; but as many as fit the descriptors that flows leave to everything else.
const (
	fewestClients   = 256
	clientsOfFiles  = 8       // there may be one for so many descriptors
	clientsOfMemory = 1 << 18 // or bytes
	clientsOfOne    = 4       // a source may have one in so many of them
	sourceBits      = 64      // of an IPv6 address: a host may have all addresses of its network
)

// How often is looked for too many. Between two looks one source can take every descriptor that is left, and those that are ended make
// room for as many that wait to be accepted: so there is one as soon as descriptors go, and one right after another that has ended some.
const (
	soonWatch  = 20 * time.Millisecond // after some were ended
	askWatch   = 50 * time.Millisecond // the number of descriptors, which costs one call
	leastWatch = time.Second
	mostWatch  = 5 * time.Second
	watchShare = 50 // a look that ended nothing may cost one part in so many of the time until the next, up to mostWatch
	tellEvery  = 10 * time.Second
)

// alarm returns how many descriptors make the next look due, where the last had n of them: half of what was left is gone then, or more
// have come than there may be clients.
func alarm(n, limit, most int) int { return n + min(max(limit-n, 0)/2, most) }

// mostClients returns how many connections of clients there may be. memory is 0 where it isn't known.
func mostClients(descriptors int, memory int64) int {
	n := descriptors / clientsOfFiles
	if memory > 0 {
		n = min(n, int(memory/clientsOfMemory))
	}
	return max(n, fewestClients)
}

// caller is a connection that CoreDNS has accepted.
type caller struct {
	fd       int
	at, from netip.AddrPort
	idle     time.Duration // since something came from it
}

// source returns whom a connection counts for.
func (c caller) source() netip.Prefix {
	a := c.from.Addr().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(sourceBits) // an address has so many bits
		return p
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// ofListeners returns the connections that came in at a listener that shares its port, as those of CoreDNS do. listeners holds all of the
// ports in question, and whether they share theirs: one on an address has it before one on all addresses.
func ofListeners(all []caller, listeners map[netip.AddrPort]bool) []caller {
	return slices.DeleteFunc(all, func(c caller) bool {
		for _, addr := range [...]netip.Addr{c.at.Addr(), everywhereLike(c.at.Addr()), netip.IPv6Unspecified()} {
			if shared, ok := listeners[netip.AddrPortFrom(addr, c.at.Port())]; ok {
				return !shared
			}
		}
		return true // it came in at one that is closed by now, or leads to somebody else
	})
}

func everywhereLike(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// crowded reports whether there are too many connections, of one source or in all.
func crowded(all []caller, most int) bool {
	if len(all) > most {
		return true
	}
	of := make(map[netip.Prefix]int)
	for _, c := range all {
		if of[c.source()]++; of[c.source()] > most/clientsOfOne {
			return true
		}
	}
	return false
}

// surplus returns the connections that are too many: of a source that has more than its share, and in all, those of the sources that have the most.
// Of one source they are those that have been quiet the longest.
func surplus(all []caller, most int) []caller {
	by := make(map[netip.Prefix][]caller)
	for _, c := range all {
		by[c.source()] = append(by[c.source()], c)
	}
	type ranked struct {
		caller
		rank int // in its source, 0 is the one that spoke last
	}
	ranks := make([]ranked, 0, len(all))
	for _, of := range by {
		slices.SortFunc(of, func(a, b caller) int { return cmp.Compare(a.idle, b.idle) })
		for i, c := range of {
			ranks = append(ranks, ranked{c, i})
		}
	}
	slices.SortFunc(ranks, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(b.idle, a.idle))
	})
	var out []caller
	for i, r := range ranks {
		if len(all)-i <= most && r.rank < most/clientsOfOne {
			break
		}
		out = append(out, r.caller)
	}
	return out
}
