package sockname

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddrPort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		of   unix.Sockaddr
		want netip.AddrPort
	}{
		{"IPv4", &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 53}, netip.MustParseAddrPort("192.0.2.1:53")},
		{"IPv6", &unix.SockaddrInet6{Addr: [16]byte{15: 1}, Port: 65535}, netip.MustParseAddrPort("[::1]:65535")},
		{"mapped", &unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}, Port: 1}, netip.MustParseAddrPort("[::ffff:127.0.0.1]:1")},
		{"with a zone", &unix.SockaddrInet6{Addr: [16]byte{0: 0xfe, 1: 0x80, 15: 1}, Port: 53, ZoneId: 1}, netip.MustParseAddrPort("[fe80::1]:53")},
		{"of a path", &unix.SockaddrUnix{Name: "/x"}, netip.AddrPort{}},
		{"none", nil, netip.AddrPort{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := AddrPort(tt.of); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
