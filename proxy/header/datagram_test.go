package header

import (
	"net/netip"
	"testing"

	"github.com/postern-link/postern/link"
)

// TestDatagrams: the transport is DGRAM in both families, mixed ones are IPv6, version 1 knows none, and what is
// written is what a datagram of a client may not begin with.
func TestDatagrams(t *testing.T) {
	for _, tt := range []struct {
		name, source, local string
		want                byte
	}{
		{"IPv4", "10.1.2.3:4000", "10.200.0.5:443", 0x12},
		{"IPv6", "[fd00::7]:4000", "[fd00:1::5]:443", 0x22},
		{"mixed", "10.1.2.3:4000", "[fd00:1::5]:443", 0x22},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Flow{Source: netip.MustParseAddrPort(tt.source), Local: netip.MustParseAddrPort(tt.local), Protocol: link.UDP}
			b, ok := Append(nil, link.ProxyV2, f)
			if !ok || b[12] != 0x21 || b[13] != tt.want || !Starts(b) {
				t.Errorf("% x, %v", b, ok)
			}
			if b, ok := Append(nil, link.ProxyV1, f); ok || len(b) > 0 {
				t.Errorf("version 1: %q, %v", b, ok)
			}
		})
	}
	for _, b := range []string{"", "\r\n\r\n\x00\r\nQUIT", "PROXY TCP4", "x\r\n\r\n\x00\r\nQUIT\n"} {
		if Starts([]byte(b)) {
			t.Errorf("%q is taken for a header", b)
		}
	}
}
