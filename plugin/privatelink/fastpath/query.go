package fastpath

import "encoding/binary"

const (
	headerSize = 12
	// maxQuery is what CoreDNS reads of a datagram, in bytes. A longer one is cut there, which is its to judge.
	maxQuery = 512
	// maxWire is the longest answer that is kept, in bytes: what privatelink sends by UDP at most (RFC 9715).
	maxWire = 1232
	// maxKey is the longest key without its view: what is in front of the name, and the name.
	maxKey = keyHead + 255
)

// keyHead is the length of what a key has before the name: flags, spelling, EDNS, size, flags of EDNS and type.
const keyHead = 2 + 1 + 2 + 2 + 2

// Bits of the third byte of a key.
const (
	spelt  = 1 << iota // the name has upper case
	hasOPT             // the query has EDNS
	six                // the client has IPv6, which counters tell apart
)

// Flags of a query.
const (
	flagRD = 1 << 8
	flagAD = 1 << 5
	flagCD = 1 << 4
)

// Sizes of EDNS, in bytes, that resolvers send (or more); for the others clients could have hundreds of entries for one name.
const (
	sizeLeast  = 512
	sizeDNSSEC = 1220
)

const (
	classIN  = 1
	typeSOA  = 6
	typeOPT  = 41
	typeTKEY = 249 // the first of those that ask for something else than records
	typeANY  = 255
)

// EDNS options that change nothing in an answer of the plugins and may have any content but for the client subnet.
const (
	optNSID    = 3
	optSubnet  = 8
	optCookie  = 10
	optPadding = 12
)

// Options are the codes of the EDNS options that change nothing in an answer.
var Options = []uint16{optNSID, optSubnet, optCookie, optPadding}

// parse appends to key what a query asks and how, all that an answer can depend on but ID, spelling and options: its flags,
// its EDNS size and flags, its type, and its name in lower case as it is on the wire. n is the length of the name
// there. ok is false for what isn't one plain question, which is left to others.
func (t *Target) parse(key, b []byte) (_ []byte, n int, ok bool) {
	if len(b) < headerSize+5 || len(b) > maxQuery {
		return key, 0, false
	}
	flags := binary.BigEndian.Uint16(b[2:])
	counts := binary.BigEndian.Uint64(b[4:]) // question, answer, authority, additional
	extra := counts & 0xffff
	// A query with one question, and at most one additional record, and no flag but those that resolvers set: a client could have any
	// number of entries for one name.
	if flags&^(flagRD|flagAD|flagCD) != 0 || counts&^0xffff != 1<<48 || extra > 1 {
		return key, 0, false
	}
	head := len(key)
	key = append(key, b[2], b[3], 0, 0, 0, 0, 0, 0, 0)
	kind := byte(0)
	off := headerSize
	for {
		if off >= len(b) {
			return key, 0, false
		}
		l := int(b[off])
		if l > 63 || off+1+l > len(b) || off+1+l-headerSize >= 255 {
			return key, 0, false
		}
		key = append(key, byte(l))
		off++
		if l == 0 {
			break
		}
		for _, c := range b[off : off+l] {
			if c-'A' < 26 {
				c |= 0x20
				kind |= spelt
			}
			key = append(key, c)
		}
		off += l
	}
	n = off - headerSize
	if off+4 > len(b) || b[off+2] != 0 || b[off+3] != classIN {
		return key, 0, false
	}
	if b[off] == 0 && b[off+1] >= typeTKEY && b[off+1] != typeANY {
		return key, 0, false // transfers and the like
	}
	key[head+7], key[head+8] = b[off], b[off+1]
	off += 4
	if extra == 1 {
		opt := b[off:]
		// Root, OPT, size, extended code and version 0, flags, length.
		if len(opt) < 11 || opt[0] != 0 || opt[1] != 0 || opt[2] != typeOPT || opt[5] != 0 || opt[6] != 0 {
			return key, 0, false
		}
		kind |= hasOPT
		size := binary.BigEndian.Uint16(opt[3:])
		if size < sizeLeast || opt[7]&0x7f != 0 || opt[8] != 0 { // also flags other than DO
			return key, 0, false
		}
		binary.BigEndian.PutUint16(key[head+3:], min(size, maxWire)) // as the answer has it
		copy(key[head+5:], opt[7:9])
		if int(binary.BigEndian.Uint16(opt[9:])) != len(opt)-11 || !t.indifferent(opt[11:]) {
			return key, 0, false
		}
	} else if off != len(b) {
		return key, 0, false
	}
	key[head+2] = kind
	return key, n, true
}

// unusual reports whether a query is asked with an EDNS size that few have. key is its own.
func unusual(key []byte) bool {
	switch binary.BigEndian.Uint16(key[3:]) {
	case sizeLeast, sizeDNSSEC, maxWire:
		return false
	}
	return key[2]&hasOPT != 0
}

// indifferent reports whether EDNS options are well formed and change nothing in an answer.
func (t *Target) indifferent(b []byte) bool {
	if len(b) > 0 && t.NoOptions {
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		l := int(binary.BigEndian.Uint16(b[2:]))
		if b[0] != 0 || l > len(b)-4 {
			return false
		}
		switch b[1] {
		case optNSID, optCookie, optPadding:
		case optSubnet:
			if t.NoSubnets || !subnet(b[4:4+l]) {
				return false
			}
		default:
			return false
		}
		b = b[4+l:]
	}
	return true
}

// subnet reports whether b is a client subnet as a client sends it (RFC 7871 section 6).
func subnet(b []byte) bool {
	if len(b) < 4 || b[0] != 0 || b[3] != 0 {
		return false
	}
	bits := bitsOf(b[1])
	return bits > 0 && int(b[2]) <= bits && len(b) == 4+(int(b[2])+7)/8
}

// bitsOf returns the length of an address of a family, in bits; 0 for an unknown one.
func bitsOf(family byte) int {
	switch family {
	case 1:
		return 32
	case 2:
		return 128
	}
	return 0
}
