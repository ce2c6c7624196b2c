package coremain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// D20: connections from sources that have a pause don't begin, others do, and theirs that are there go on; afterwards all are heard again.
func TestSilence(t *testing.T) {
	t.Parallel()
	var many []netip.Prefix
	for i := range mostPaused / 2 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32), netip.MustParsePrefix(fmt.Sprintf("2001:db8:0:%x::/64", i)))
	}
	for _, tt := range []struct {
		name, at, from string
		sources        []string
		heard          bool
	}{
		{"IPv4", "127.0.0.1:0", "127.0.0.9", []string{"127.0.0.9/32"}, false},
		{"another one of IPv4", "127.0.0.1:0", "127.0.0.8", []string{"127.0.0.9/32", "::/64"}, true},
		{"the last of IPv4", "127.0.0.1:0", "127.0.0.9", []string{"127.0.0.7/32", "127.0.0.8/32", "::/64", "127.0.0.9/32"}, false},
		{"IPv4 at a listener of both", "[::]:0", "127.0.0.9", []string{"127.0.0.9/32"}, false},
		{"another one of IPv4 there", "[::]:0", "127.0.0.8", []string{"127.0.0.9/32", "::/64"}, true},
		{"a network of IPv6", "[::1]:0", "::1", []string{"::/64"}, false},
		{"another network of IPv6", "[::1]:0", "::1", []string{"0:0:0:1::/64", "0:1::/64", "127.0.0.1/32"}, true},
		{"the last of IPv6", "[::1]:0", "::1", []string{"0:0:0:1::/64", "127.0.0.1/32", "0:1::/64", "::/64"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", tt.at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() { // one byte comes back
						defer conn.Close()
						b := make([]byte, 1)
						for {
							if _, err := conn.Read(b); err != nil {
								return
							}
							_, _ = conn.Write(b)
						}
					}()
				}
			}()
			dial := func(patience time.Duration) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				at := l.Addr().(*net.TCPAddr).AddrPort()
				if from := netip.MustParseAddr(tt.from); from.Is4() {
					at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
				}
				return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(tt.from)}}).DialContext(ctx, "tcp", at.String())
			}
			talk := func(conn net.Conn) {
				t.Helper()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				b := []byte("x")
				if _, err := conn.Write(b); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Read(b); err != nil {
					t.Fatal(err)
				}
			}
			before, err := dial(10 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer before.Close()
			talk(before)
			sources := slices.Clone(many)
			for _, s := range tt.sources {
				sources = append(sources, netip.MustParsePrefix(s))
			}
			tell(t, l, sources)
			patience := 10 * time.Second
			if !tt.heard {
				patience = 300 * time.Millisecond
			}
			conn, err := dial(patience)
			if (err == nil) != tt.heard || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%v, want it heard: %v", err, tt.heard)
			}
			if err == nil {
				talk(conn)
				conn.Close()
			}
			talk(before)
			tell(t, l, nil)
			tell(t, l, nil)
			if conn, err = dial(10 * time.Second); err != nil {
				t.Fatal(err)
			}
			talk(conn)
			conn.Close()
		})
	}
}

func tell(t *testing.T, l net.Listener, sources []netip.Prefix) {
	t.Helper()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = setSilence(int(fd), sources) }); err != nil || refused != nil {
		t.Fatal(err, refused)
	}
}
