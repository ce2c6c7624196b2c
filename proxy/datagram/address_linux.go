package datagram

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// endpoint is an address and port as a key: what the kernel says, without a pointer in it.
type endpoint struct {
	ip   [16]byte // IPv4 as IPv4-mapped; no IPv6 packet has such an address here, see from
	zone uint32   // of link-local IPv6 addresses
	port uint16
}

// key names a flow.
type key struct{ client, local endpoint }

func endpointOf(a netip.AddrPort) endpoint {
	addr := a.Addr().Unmap()
	var zone uint64
	if z := addr.Zone(); z != "" { // the error that none is a number would be made for every datagram
		zone, _ = strconv.ParseUint(z, 10, 32)
	}
	return endpoint{addr.As16(), uint32(zone), a.Port()}
}

// addrPort returns it as the rest of the program has it, unmapped. A zone is the number of the interface.
func (e endpoint) addrPort() netip.AddrPort {
	a := netip.AddrFrom16(e.ip).Unmap()
	if e.zone != 0 && a.Is6() {
		a = a.WithZone(strconv.FormatUint(uint64(e.zone), 10))
	}
	return netip.AddrPortFrom(a, e.port)
}

// hash spreads flows over the shards of the table. Whoever makes keys on purpose makes one shard's lock slow, and
// nothing else.
func (k *key) hash() uint32 {
	h := binary.LittleEndian.Uint64(k.client.ip[8:]) ^ binary.LittleEndian.Uint64(k.local.ip[8:])
	h = (h ^ uint64(k.client.port)<<16 ^ uint64(k.local.port)) * 0x9e3779b97f4a7c15
	return uint32(h >> 40)
}
