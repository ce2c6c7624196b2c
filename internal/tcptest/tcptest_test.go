package tcptest

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestServe: what is sent comes back, also when no connection is taken any more; the end of the test ends what is still there.
func TestServe(t *testing.T) {
	t.Parallel()
	var c net.Conn
	t.Run("while it lasts", func(t *testing.T) {
		s := Serve(t, "127.0.0.1:0", Echo)
		var err error
		if c, err = net.Dial("tcp", s.Addr.String()); err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 5)
		for _, text := range []string{"hello", "again"} {
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
				t.Fatalf("%q: %v", b, err)
			}
			s.Close()
		}
		if other, err := net.Dial("tcp", s.Addr.String()); err == nil {
			other.Close()
			t.Error("it still listens")
		}
	})
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the test: %v", err)
	}
}
