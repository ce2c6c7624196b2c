// Package header writes the PROXY protocol header that a target receives in front of a flow, and
// recognises the beginning of one. The format is HAProxy's proxy-protocol.txt, sections 2.1 and 2.2;
// the private-link TLVs are those that Azure, AWS and Google Cloud document.
package header

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strconv"

	"github.com/postern-link/postern/link"
)

// Types of TLVs (section 2.2 and the clouds' manuals).
const (
	typeAuthority = 0x02
	typeCRC32C    = 0x03
	typeUniqueID  = 0x05
	typeGCP       = 0xE0
	typeAWS       = 0xEA
	typeAzure     = 0xEE

	subtypeAzureLinkID = 0x01
	subtypeAWSEndpoint = 0x01
)

// Version 2: the signature, then version and command, then family and transport.
const (
	signature  = "\r\n\r\n\x00\r\nQUIT\n"
	v2Local    = 0x20
	v2Proxy    = 0x21
	familyNone = 0x00
	family4    = 0x10
	family6    = 0x20
	stream     = 0x1 // TCP
	datagrams  = 0x2 // UDP
	v2Fixed    = 16  // bytes before the addresses
)

const (
	prefixV1 = "PROXY"
	localV1  = "PROXY UNKNOWN\r\n"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Flow is what a header says of a flow.
type Flow struct {
	Source   netip.AddrPort // the client
	Local    netip.AddrPort // the endpoint address and port that it connected to
	LinkID   link.LinkID
	Endpoint link.ID
	Name     link.Name // the judged server name; empty: none, no authority is sent
	UniqueID []byte    // of the flow, at most 128 bytes; empty: none is sent
	Protocol link.Protocol
}

// Append appends the header of a flow to b. [link.ProxyOff] appends nothing; a kind that isn't known
// reports false, so that a flow isn't carried without the header that its service asks for. Of UDP it is
// what each datagram begins with (section 2.2).
//
// Where the two addresses are of two families, the IPv4 one is written as IPv4-mapped IPv6.
func Append(b []byte, kind link.ProxyProtocol, f Flow) (_ []byte, ok bool) {
	switch kind {
	case link.ProxyOff:
		return b, true
	case link.ProxyV1:
		if f.Protocol == link.UDP {
			return b, false // version 1 has no word for it
		}
		return appendV1(b, f), true
	case link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP:
		return appendV2(b, kind, f), true
	}
	return b, false
}

// AppendLocal appends the header of a connection of our own, such as a probe: one without a client.
func AppendLocal(b []byte, kind link.ProxyProtocol) []byte {
	switch kind {
	case link.ProxyOff:
		return b
	case link.ProxyV1:
		return append(b, localV1...)
	}
	start := len(b)
	b = append(b, signature...)
	b = append(b, v2Local, familyNone, 0, 0)
	return finish(b, start)
}

func appendV1(b []byte, f Flow) []byte {
	source, local := sameFamily(f.Source, f.Local)
	b = append(append(b, prefixV1...), ' ')
	if source.Addr().Is4() {
		b = append(b, "TCP4 "...)
	} else {
		b = append(b, "TCP6 "...)
	}
	b = append(source.Addr().AppendTo(b), ' ')
	b = append(local.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(source.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(local.Port()), 10)
	return append(b, "\r\n"...)
}

func appendV2(b []byte, kind link.ProxyProtocol, f Flow) []byte {
	source, local := sameFamily(f.Source, f.Local)
	family := byte(family6)
	if source.Addr().Is4() {
		family = family4
	}
	transport := byte(stream)
	if f.Protocol == link.UDP {
		transport = datagrams
	}
	start := len(b)
	b = append(b, signature...)
	b = append(b, v2Proxy, family|transport, 0, 0)
	b = append(b, source.Addr().AsSlice()...)
	b = append(b, local.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	b = binary.BigEndian.AppendUint16(b, local.Port())
	switch kind {
	case link.ProxyAzure:
		v := binary.LittleEndian.AppendUint32([]byte{subtypeAzureLinkID}, uint32(f.LinkID))
		b = appendTLV(b, typeAzure, v)
	case link.ProxyAWS:
		b = appendTLV(b, typeAWS, append([]byte{subtypeAWSEndpoint}, f.Endpoint...))
	case link.ProxyGCP:
		b = appendTLV(b, typeGCP, binary.BigEndian.AppendUint64(nil, uint64(f.LinkID)))
	}
	if f.Name != "" {
		b = appendTLV(b, typeAuthority, []byte(f.Name))
	}
	if len(f.UniqueID) > 0 {
		b = appendTLV(b, typeUniqueID, f.UniqueID)
	}
	return finish(b, start)
}

// appendTLV appends one TLV. All of ours together are below 1 KiB, far from the limit of 64 KiB.
func appendTLV(b []byte, kind byte, value []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// finish appends the checksum of the version 2 header that begins at start, and sets its length. The
// checksum is of the whole header, with zeros in its own place (section 2.2.5).
func finish(b []byte, start int) []byte {
	b = appendTLV(b, typeCRC32C, make([]byte, 4))
	binary.BigEndian.PutUint16(b[start+14:], uint16(len(b)-start-v2Fixed))
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[start:], castagnoli))
	return b
}

// sameFamily makes both addresses IPv4, or both IPv6.
func sameFamily(x, y netip.AddrPort) (netip.AddrPort, netip.AddrPort) {
	x, y = unmap(x), unmap(y)
	if x.Addr().Is4() && y.Addr().Is4() {
		return x, y
	}
	return to6(x), to6(y)
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func to6(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}
