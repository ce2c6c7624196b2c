package datagram

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// FuzzName reads addresses of any size and family; what is accepted is written as it was read.
func FuzzName(f *testing.F) {
	for _, a := range []string{"10.1.2.3:53", "[fd00::1]:443", "[fe80::1%3]:1", "[::ffff:10.1.2.3]:80"} {
		ap := netip.MustParseAddrPort(a)
		var n mmsg.Name
		size := to(&n, endpointOf(ap), ap.Addr().Is4())
		f.Add(unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)), size)
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		var n mmsg.Name
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
			var back mmsg.Name
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
		var n mmsg.Name
		four := ap.Addr().Is4()
		size := to(&n, endpointOf(ap), four)
		if made := testing.AllocsPerRun(100, func() { from(&n, size, four) }); made != 0 {
			t.Errorf("%s: %v allocations", a, made)
		}
	}
}

// TestMessage: what makes no sense is dropped before anybody looks for its flow.
func TestMessage(t *testing.T) {
	for _, tt := range []struct {
		name     string
		from, to string
		cut      int // bytes of the control message that are missing
		flags    int32
		ok       bool
	}{
		{"IPv6", "[fd00::2]:9", "fd00::1", 0, 0, true},
		{"to a mapped address", "[fd00::2]:9", "::ffff:10.1.2.3", 0, 0, false},
		{"from a mapped address", "[::ffff:10.1.2.3]:9", "fd00::1", 0, 0, false},
		{"from port 0", "[fd00::2]:0", "fd00::1", 0, 0, false},
		{"the control message cut", "[fd00::2]:9", "fd00::1", 10, 0, false},
		{"cut, as the kernel says", "[fd00::2]:9", "fd00::1", 0, unix.MSG_TRUNC, false},
		{"the control messages cut, as the kernel says", "[fd00::2]:9", "fd00::1", 0, unix.MSG_CTRUNC, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := batches.Get().(*batch)
			defer batches.Put(b)
			b.ready(0, true)
			m, from := &b.in[0], netip.MustParseAddrPort(tt.from)
			b.names[0] = mmsg.Name{Family: unix.AF_INET6, Port: mmsg.Port(from.Port()), Addr: from.Addr().As16()}
			m.SetControllen(mmsg.PutSource(b.beside[0].Bytes(), netip.MustParseAddr(tt.to)) - tt.cut)
			m.Flags, m.Size = tt.flags, 1
			got, ok := b.message(0, true, false)
			if ok != tt.ok || ok && (got.from.addrPort() != from || got.local.String() != tt.to || len(got.data) != 1) {
				t.Errorf("%v, from %v to %v", ok, got.from.addrPort(), got.local)
			}
		})
	}
}
