package datagram

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzBeside reads whatever a kernel might say beside a datagram.
func FuzzBeside(f *testing.F) {
	b := make([]byte, sizeofControl)
	f.Add(append([]byte(nil), control(b, netip.MustParseAddr("10.1.2.3"), 0)...))
	f.Add(append([]byte(nil), control(b, netip.MustParseAddr("fd00::1"), 1200)...))
	f.Add([]byte{})
	f.Add(make([]byte, unix.SizeofCmsghdr))
	f.Fuzz(func(t *testing.T, b []byte) {
		local, segment, ok := beside(b)
		if segment < 0 && ok {
			t.Errorf("segment %d", segment)
		}
		if ok && local.Is4In6() {
			t.Errorf("%v passes for an IPv4 address", local)
		}
	})
}

// FuzzName reads addresses of any size and family; what is accepted is written as it was read.
func FuzzName(f *testing.F) {
	for _, a := range []string{"10.1.2.3:53", "[fd00::1]:443", "[fe80::1%3]:1", "[::ffff:10.1.2.3]:80"} {
		ap := netip.MustParseAddrPort(a)
		var n name
		size := to(&n, endpointOf(ap), ap.Addr().Is4())
		f.Add(unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)), size)
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		var n name
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)), b)
		for _, four := range []bool{true, false} {
			e, ok := from(&n, size, four)
			if !ok {
				continue
			}
			a := e.addrPort()
			if a.Addr().Is4() != four || a.Port() == 0 {
				t.Errorf("%v of a socket of IPv4: %v", a, four)
			}
			var back name
			if s := to(&back, e, four); s > size {
				t.Errorf("size %d, was %d", s, size)
			}
			if again, ok := from(&back, unix.SizeofSockaddrInet6, four); !ok || again != e || endpointOf(a) != e {
				t.Errorf("%v became %v", e, again)
			}
		}
	})
}

// TestNameAllocates: who sends is read of each datagram, a flood's too, and leaves nothing behind.
func TestNameAllocates(t *testing.T) {
	for _, a := range []string{"10.1.2.3:53", "[fd00::1]:443", "[fe80::1%3]:1"} {
		ap := netip.MustParseAddrPort(a)
		var n name
		four := ap.Addr().Is4()
		size := to(&n, endpointOf(ap), four)
		if made := testing.AllocsPerRun(100, func() { from(&n, size, four) }); made != 0 {
			t.Errorf("%s: %v allocations", a, made)
		}
	}
}

func TestBeside(t *testing.T) {
	b := make([]byte, sizeofControl)
	for _, tt := range []struct {
		name string
		in   []byte
		want string // local address
		ok   bool
	}{
		{"nothing", nil, "invalid IP", true},
		{"cut", control(b, netip.MustParseAddr("10.1.2.3"), 0)[:20], "invalid IP", false},
		{"a mapped address", mapped(), "::ffff:10.1.2.3", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if local, _, ok := beside(tt.in); local.String() != tt.want || ok != tt.ok {
				t.Errorf("%v %v", local, ok)
			}
		})
	}
}

// mapped is an IPv6 packet's destination that would pass for an IPv4 address.
func mapped() []byte {
	b := control(make([]byte, sizeofControl), netip.MustParseAddr("fd00::1"), 0)
	a := netip.MustParseAddr("::ffff:10.1.2.3").As16()
	copy(b[unix.CmsgLen(0):], a[:])
	return b
}
