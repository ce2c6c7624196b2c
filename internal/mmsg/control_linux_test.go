package mmsg

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// said is a control message of the kernel.
func said(level, kind int32, data ...byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	copy(put(b, level, kind, len(data)), data)
	return b
}

// lies is a control message that says another length than it has.
func lies(b []byte, length int) []byte {
	b = slices.Clone(b)
	(*unix.Cmsghdr)(unsafe.Pointer(&b[0])).SetLen(length)
	return b
}

func four(to string, index byte) []byte {
	a := netip.MustParseAddr(to).As4()
	return said(unix.IPPROTO_IP, unix.IP_PKTINFO, slices.Concat([]byte{index, 0, 0, 0, 10, 0, 0, 1}, a[:])...)
}

func six(to string, index byte) []byte {
	a := netip.MustParseAddr(to).As16()
	return said(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, slices.Concat(a[:], []byte{index, 0, 0, 0})...)
}

func size(n uint32) []byte {
	return said(unix.IPPROTO_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint32(nil, n)...)
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		got  []byte
		to   string
		size int
		ok   bool
	}{
		{"nothing", nil, "invalid IP", 0, true},
		{"IPv4", four("10.1.2.3", 1), "10.1.2.3", 0, true},
		{"IPv6", six("fd00::1", 1), "fd00::1", 0, true},
		{"IPv4 on a socket of IPv6", six("::ffff:10.1.2.3", 1), "::ffff:10.1.2.3", 0, true},
		{"a size", size(1200), "invalid IP", 1200, true},
		{"both", slices.Concat(four("10.1.2.3", 1), size(1200)), "10.1.2.3", 1200, true},
		{"behind something else", slices.Concat(said(unix.IPPROTO_IP, unix.IP_TTL, 64, 0, 0, 0), six("fd00::1", 1)), "fd00::1", 0, true},
		{"less than a header behind", append(four("10.1.2.3", 1), 1, 2, 3), "10.1.2.3", 0, true},
		{"IPv4 cut", four("10.1.2.3", 1)[:20], "invalid IP", 0, false},
		{"IPv4 too short", said(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, 2, 3, 4), "invalid IP", 0, false},
		{"IPv6 too short", said(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 16)...), "invalid IP", 0, false},
		{"a size too short", said(unix.IPPROTO_UDP, unix.UDP_GRO, 1, 2), "invalid IP", 0, false},
		{"no size", size(0), "invalid IP", 0, false},
		{"a negative size", size(1 << 31), "invalid IP", -1 << 31, false},
		{"longer than there is", lies(four("10.1.2.3", 1), math.MaxInt), "invalid IP", 0, false},
		{"shorter than its header", lies(four("10.1.2.3", 1), 3), "invalid IP", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if to, size, ok := Read(tc.got); to.String() != tc.to || size != tc.size || ok != tc.ok {
				t.Errorf("to %v, size %d, %v", to, size, ok)
			}
		})
	}
}

// TestReply: an answer leaves from the address that was asked, whatever else the kernel has said.
func TestReply(t *testing.T) {
	t.Parallel()
	const length4, length6 = 32, 40
	for _, tc := range []struct {
		name      string
		got, want []byte // want: of what is behind the header
		length    int
	}{
		{"IPv6", six("fd00::1", 3), six("fd00::1", 0), length6},
		{"of a link", six("fe80::1", 3), six("fe80::1", 3), length6},
		{"of the end of the link's prefix", six("febf::1", 3), six("febf::1", 3), length6},
		{"behind the link's prefix", six("fec0::1", 3), six("fec0::1", 0), length6},
		{"IPv4 on a socket of IPv6", six("::ffff:127.0.0.2", 1), six("::ffff:127.0.0.2", 0), length6},
		{"IPv4", four("10.0.0.2", 3), said(unix.IPPROTO_IP, unix.IP_PKTINFO, 0, 0, 0, 0, 10, 0, 0, 2, 10, 0, 0, 2), length4},
		{"IPv6 without what aligns", six("fd00::1", 3)[:unix.CmsgLen(20)], six("fd00::1", 0)[:unix.CmsgLen(20)], unix.CmsgLen(20)},
		{"nothing", nil, nil, 0},
		{"half a header", make([]byte, unix.SizeofCmsghdr/2), make([]byte, unix.SizeofCmsghdr/2), 0},
		{"something else", said(unix.IPPROTO_IP, unix.IP_TTL, 64, 0, 0, 0), said(unix.IPPROTO_IP, unix.IP_TTL, 64, 0, 0, 0), 0},
		{"cut", six("fd00::1", 3)[:30], six("fd00::1", 3)[:30], 0},
		{"too short", said(unix.IPPROTO_IP, unix.IP_PKTINFO, 3, 0, 0, 0), said(unix.IPPROTO_IP, unix.IP_PKTINFO, 3, 0, 0, 0), 0},
		{"too long", said(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 24)...), said(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 24)...), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if n := Reply(tc.got); n != tc.length || !bytes.Equal(tc.got, tc.want) {
				t.Errorf("%d bytes %x, want %d %x", n, tc.got, tc.length, tc.want)
			}
		})
	}
}

// FuzzControl reads whatever a kernel might say beside a datagram. Where it is the address alone, what replies leaves from there.
func FuzzControl(f *testing.F) {
	for _, b := range [][]byte{nil, make([]byte, unix.SizeofCmsghdr), four("10.1.2.3", 1), six("fd00::1", 1), six("fe80::1", 1),
		slices.Concat(six("fd00::1", 2), size(1200)), lies(size(9), -1)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		to, size, ok := Read(b)
		if ok && size < 0 || to.Zone() != "" {
			t.Errorf("to %v, size %d", to, size)
		}
		before := slices.Clone(b)
		n := Reply(b)
		if n < 0 || n > len(b) || n == 0 && !bytes.Equal(b, before) {
			t.Fatalf("%d of %d bytes, %x was %x", n, len(b), b, before)
		}
		if n == 0 {
			return
		}
		_, data, _, err := unix.ParseOneSocketControlMessage(b)
		_, was, _, _ := unix.ParseOneSocketControlMessage(before)
		switch {
		case err != nil || len(data) != len(was):
			t.Errorf("%x is no control message any more", b)
		case n <= unix.CmsgSpace(unix.SizeofInet4Pktinfo) && !bytes.Equal(data[4:8], was[8:12]):
			t.Errorf("%x leaves not from where %x was sent to", data, was)
		case n > unix.CmsgSpace(unix.SizeofInet4Pktinfo) && !bytes.Equal(data[:16], was[:16]):
			t.Errorf("%x leaves not from where %x was sent to", data, was)
		}
	})
}

// TestControlAllocates: what is beside a datagram is read and written for each, a flood's too, and leaves nothing behind.
func TestControlAllocates(t *testing.T) {
	for _, b := range [][]byte{slices.Concat(four("10.1.2.3", 1), size(9)), slices.Concat(six("fe80::1", 1), size(9)), make([]byte, 88)} {
		var c Controls
		made := testing.AllocsPerRun(100, func() {
			to, _, _ := Read(b)
			n := PutSource(c.Bytes(), to)
			PutSize(c.Bytes()[n:], 1200)
			Reply(b)
		})
		if made != 0 {
			t.Errorf("%v allocations", made)
		}
	}
}
