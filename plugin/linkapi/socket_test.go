package linkapi

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/wholefile"
)

// TestConnectionsOfOneSource is A16: one client can't take the places of all.
func TestConnectionsOfOneSource(t *testing.T) {
	s, l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.mu.Lock()
	s.perSource = 3
	s.mu.Unlock()
	open := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		client, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	take := func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var taken []net.Conn
	for range 3 {
		open("127.0.0.1")
		taken = append(taken, take())
	}
	refused := open("127.0.0.1")
	_ = refused.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := refused.Read([]byte{0}); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the fourth connection of a client: %v, want it closed", err)
	}
	open("127.0.0.2") // another client
	if c := take(); sourceOf(c.RemoteAddr()).String() != "127.0.0.2" {
		t.Errorf("took the connection of %s", c.RemoteAddr())
	}
	_ = taken[0].Close()
	_ = taken[0].Close() // twice gives one place back
	again := open("127.0.0.1")
	go func() { _, _ = io.WriteString(again, "x") }()
	if _, err := io.ReadFull(take(), []byte{0}); err != nil {
		t.Error(err)
	}
}

func TestSourceOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::", "[fe80::1%lo]:1": "fe80::",
	} {
		if got := sourceOf(named(addr)); got.String() != want {
			t.Errorf("%s is of %s, want %s", addr, got, want)
		}
	}
}

// named is an address of any text.
type named string

func (n named) Network() string { return "tcp" }
func (n named) String() string  { return string(n) }

// TestAuthoritiesReload: client certificates of an authority that is added to the file are taken without a
// restart, and no longer when it is taken out.
func TestAuthoritiesReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	put := func(text []byte) {
		t.Helper()
		if err := wholefile.Replace(path, 0o600, wholefile.Text(text)); err != nil {
			t.Fatal(err)
		}
	}
	authority := func() []byte {
		t.Helper()
		cert, _, err := selfSigned([]string{"ca.example"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	one, two := authority(), authority()
	put(one)
	a, err := openAuthorities(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, texts ...[]byte) {
		t.Helper()
		a.look()
		var all []byte
		for _, text := range texts {
			all = append(all, text...)
		}
		expected := &authorities{}
		certs := parseCertificates(all)
		expected.certs.Store(&certs)
		if !a.with(nil).Equal(expected.with(nil)) {
			t.Errorf("%s: other authorities are in force", what)
		}
	}
	want("at first", one)
	put(append(append([]byte{}, one...), two...))
	want("one added", one, two)
	put([]byte("half"))
	want("nonsense", one, two)
	if a.complaint == "" {
		t.Error("nothing was said")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("no file", one, two)
	put(two)
	want("the first taken out", two)
	if (*authorities)(nil).with(nil) != nil {
		t.Error("no authorities are some")
	}
}
