//go:build linux

package node

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/proxy"
	"github.com/postern-link/postern/proxy/datagram"
)

// TestSendWaiting: as many flows as may wait, with as much as may be held of each, fit into messages.
func TestSendWaiting(t *testing.T) {
	t.Parallel()
	mine, other := connections(t, false)
	other.SetReadDeadline(time.Now().Add(handPatience))
	at := netip.MustParseAddrPort("[2001:db8::ffff:ffff]:65535")
	var all []proxy.Waiting
	add := func(n int, sizes ...int) {
		for range n {
			w := proxy.Waiting{Client: at, Local: at}
			for _, size := range sizes {
				w.Held = append(w.Held, datagram.Held{Data: bytes.Repeat([]byte{0xff}, size), Segment: size})
			}
			all = append(all, w)
		}
	}
	add(300)                         // nothing held
	add(300, 1, 1, 1, 1, 1, 1, 1, 1) // small ones
	add(5, 65507, 16<<10)            // as large as there are
	add(20, 1200, 1200, 1200, 1200)  // as of QUIC
	sent := make(chan error, 1)
	go func() { sent <- (&heir{conn: mine}).sendWaiting(all) }()
	for got := 0; got < len(all); {
		m, _, err := other.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != succession.Anew || len(m.Anew) == 0 {
			t.Fatalf("%q with %d flows", m.Kind, len(m.Anew))
		}
		for _, w := range m.Anew {
			want := all[got]
			if w.Source != at || w.Local != at || len(w.Held) != len(want.Held) {
				t.Fatalf("flow %d: %v with %d datagrams", got, w.Source, len(w.Held))
			}
			for i, h := range w.Held {
				if !bytes.Equal(h.Data, want.Held[i].Data) || h.Segment != want.Held[i].Segment {
					t.Errorf("flow %d, datagram %d differs", got, i)
				}
			}
			got++
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
