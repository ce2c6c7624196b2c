package engine

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// A stream whose last bytes have nothing behind them is delivered whole, at once answered, and begins anew: what is told of late must not
// be told of never.
func TestStreamTail(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, from := range []Side{Client, Target} {
			p := w.pair(nil)
			a, b := net.Conn(p.client), net.Conn(p.target)
			if from == Target {
				a, b = b, a
			}
			deadline := time.Now().Add(60 * time.Second)
			a.SetDeadline(deadline)
			b.SetDeadline(deadline)
			random := rand.NewChaCha8([32]byte{byte(from)})
			for i, size := range []int{9 << 20, 5<<20 + 1, 1, 12<<20 + 70_000} {
				sent := make([]byte, size)
				random.Read(sent)
				failed := make(chan error, 1)
				go func() {
					_, err := a.Write(sent)
					failed <- err
				}()
				got := sha256.New()
				if _, err := io.CopyN(got, b, int64(size)); err != nil {
					t.Fatalf("side %d, %d: %v", from, i, err)
				}
				if want := sha256.Sum256(sent); !bytes.Equal(got.Sum(nil), want[:]) {
					t.Fatalf("side %d, %d: other bytes came", from, i)
				}
				if err := <-failed; err != nil {
					t.Fatal(err)
				}
				if i%2 == 0 {
					say(t, b, "more")
					hear(t, a, "more")
				}
			}
		}
	})
}
