package coremain

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestManager: what the service manager hears, by the socket that the environment names.
func TestManager(t *testing.T) {
	at := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: at})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", at)
	t.Setenv("WATCHDOG_USEC", "3000000")
	t.Setenv("WATCHDOG_PID", "1")
	m, err := newManager(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.conn.Close()
	if m.pulse != 0 {
		t.Errorf("pulse %v for another process", m.pulse)
	}
	if got := pulse(func(string) string { return "3000000" }, true); got != 1500*time.Millisecond {
		t.Errorf("pulse %v", got)
	}
	read := func(want string) {
		t.Helper()
		b := make([]byte, 256)
		l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := l.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), want) {
			t.Errorf("%q, want %q: %v", b[:n], want, err)
		}
	}
	m.tell("READY=1")
	read("READY=1")
	m.reloading()
	read("RELOADING=1\nMONOTONIC_USEC=")
	none := &manager{}
	none.tell("READY=1") // nobody hears it
}
