package privatelink

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// TestFastpathKept: after a change of something else, what was asked before is still answered from the table, byte for byte as the plugins
// answer now: with the serial of now. One of the answers may share a place with what has changed, so there are three tries.
func TestFastpathKept(t *testing.T) {
	t.Parallel()
	srv := startFast(t, loops(t))
	questions := [][]byte{
		packed(t, "contoso.database.windows.net A", nil), packed(t, "contoso.database.windows.net HTTPS", nil),
		packed(t, "kv.vault.azure.net AAAA", shapes[6].change), packed(t, "nobody.privatelink.database.windows.net A", nil), packed(t, "privatelink.database.windows.net SOA", nil),
	}
	for try := range 3 {
		for _, b := range questions {
			srv.known(t, corpLoop, b)
		}
		srv.now.Store(apply(t, srv.now.Load(), to("plain", "corp", fmt.Sprint("10.200.0.", 20+try))))
		before := srv.answered()
		for i, b := range questions {
			want := srv.raw(t, corpLoop, srv.slow, b)
			if got := srv.raw(t, corpLoop, srv.quick, b); !bytes.Equal(got, want) {
				t.Fatalf("question %d:\ngot\n%x\nwant\n%x", i, got, want)
			}
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) { // they are counted when they are sent
			if srv.answered() == before+float64(len(questions)) {
				return
			}
		}
	}
	t.Error("what a change isn't about isn't answered from the table any more")
}
