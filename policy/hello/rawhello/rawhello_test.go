package rawhello

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificate is one that signs itself.
func certificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// peer is a server of Go's that presents a certificate per name and answers with what it is sent.
func peer(t testing.TB, change func(*tls.Config)) string {
	t.Helper()
	byName := map[string]tls.Certificate{"a.example": certificate(t, "a.example"), "b.example": certificate(t, "b.example"), "": certificate(t, "default")}
	cfg := &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, ok := byName[h.ServerName]
		if !ok {
			return nil, errors.New("no such name")
		}
		return &c, nil
	}}
	if change != nil {
		change(cfg)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return ln.Addr().String()
}

// dial connects with a deadline for all that follows.
func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// echo exchanges a line.
func echo(t *testing.T, c *Conn) {
	t.Helper()
	line := strings.Repeat("x", 40000) + "\n" // of more than one record
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(line))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != line {
		t.Fatalf("%v", err)
	}
}

func common(s State) string {
	if len(s.Certificates) == 0 {
		return ""
	}
	return s.Certificates[0].Subject.CommonName
}

func TestHandshakeGo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hello   *Hello
		server  func(*tls.Config)
		records []int
		second  func(*Hello) *Hello
		want    State
		cert    string
		alert   byte // of the server; zero: none
	}{
		{name: "TLS 1.3", hello: New("a.example"), want: State{Version: TLS13, Suite: 0x1301, Group: X25519}, cert: "a.example"},
		{name: "no name, X01", hello: New(), want: State{Version: TLS13, Suite: 0x1301, Group: X25519}, cert: "default"},
		{name: "AES-256", hello: with(New("a.example"), func(h *Hello) { h.Suites = []uint16{0x1302} }), want: State{Version: TLS13, Suite: 0x1302, Group: X25519}, cert: "a.example"},
		{name: "P-521", hello: New("a.example").Share(P521), want: State{Version: TLS13, Suite: 0x1301, Group: P521}, cert: "a.example"},
		{name: "ALPN", hello: New("a.example").Add(ALPN("x", "y")), server: func(c *tls.Config) { c.NextProtos = []string{"y"} },
			want: State{Version: TLS13, Suite: 0x1301, Group: X25519, ALPN: "y"}, cert: "a.example"},
		{name: "certificate asked for", hello: New("b.example"), server: func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert },
			want: State{Version: TLS13, Suite: 0x1301, Group: X25519}, cert: "b.example"},
		{name: "second hello", hello: New("a.example").Share(), want: State{Version: TLS13, Suite: 0x1301, Group: X25519, Retried: true}, cert: "a.example"},
		{name: "second hello with another name, X13", hello: New("a.example").Share(),
			second: func(h *Hello) *Hello { return h.Set(Names("b.example")) }, want: State{Suite: 0x1301, Group: X25519, Retried: true}, alert: 47},
		{name: "TLS 1.2", hello: New12("b.example"), want: State{Version: TLS12, Suite: 0xc02b}, cert: "b.example"},
		{name: "TLS 1.2 alone at the server", hello: New("b.example"), server: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
			want: State{Version: TLS12, Suite: 0xc02b}, cert: "b.example"},
		{name: "TLS 1.2, AES-256, certificate asked for", hello: with(New12("a.example"), func(h *Hello) { h.Suites = []uint16{0xc02c} }),
			server: func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }, want: State{Version: TLS12, Suite: 0xc02c}, cert: "a.example"},
		{name: "TLS 1.2 without extended master secret", hello: New12("a.example").Drop(ExtMasterSecret), want: State{Version: TLS12, Suite: 0xc02b}, cert: "a.example"},
		{name: "records of a byte, X09", hello: New("a.example"), records: Every(1, New("a.example").Message()), want: State{Version: TLS13, Suite: 0x1301, Group: X25519}, cert: "a.example"},
		{name: "two names, X07", hello: New("a.example", "b.example"), alert: 50},
		{name: "two extensions, X07", hello: New("a.example").Add(Names("b.example")), alert: 50},
		{name: "trailing dot, X05", hello: New("a.example."), alert: 50},
		{name: "GREASE ECH, X12", hello: New("a.example").Add(ECH()), want: State{Version: TLS13, Suite: 0x1301, Group: X25519}, cert: "a.example"},
		{name: "name that isn't there", hello: New("c.example"), alert: 80},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := dial(t, peer(t, tt.server))
			c, err := Handshake(conn, Config{Hello: tt.hello, Second: tt.second, Records: tt.records})
			got := c.State()
			name := common(got)
			got.Certificates = nil
			var alert Alert
			if errors.As(err, &alert); alert.Code != tt.alert || tt.alert == 0 && err != nil {
				t.Fatalf("%v, want alert %d", err, tt.alert)
			}
			if name != tt.cert || !equal(got, tt.want) {
				t.Errorf("%+v of %q, want %+v of %q", got, name, tt.want, tt.cert)
			}
			if err == nil {
				echo(t, c)
			}
		})
	}
}

func with(h *Hello, change func(*Hello)) *Hello {
	change(h)
	return h
}

func equal(x, y State) bool {
	return x.Version == y.Version && x.Suite == y.Suite && x.Group == y.Group && x.Retried == y.Retried && x.Resumed == y.Resumed &&
		x.ALPN == y.ALPN && x.RetryConfigs == y.RetryConfigs
}

// TestTicketGo: a session of TLS 1.2 is taken up by its ticket, also under another name (E15).
func TestTicketGo(t *testing.T) {
	addr := peer(t, nil)
	c, err := Handshake(dial(t, addr), Config{Hello: New12("b.example")})
	if err != nil || c.Session() == nil || len(c.Session().Ticket) == 0 {
		t.Fatalf("%v, session %v", err, c.Session())
	}
	again, err := Handshake(dial(t, addr), Config{Hello: New12("a.example").ResumeTicket(c.Session())})
	if err != nil || !again.State().Resumed {
		t.Fatalf("%v, %+v", err, again.State())
	}
	echo(t, again)
	if err := again.Renegotiate(New12("b.example")); err == nil {
		t.Error("Go's server renegotiates")
	}
}

// TestRetryConfigs: a server with keys for ECH answers GREASE with its configurations.
func TestRetryConfigs(t *testing.T) {
	key, err := curves[X25519].GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := slices.Concat([]byte{7}, words(0x20), vector16(key.PublicKey().Bytes()), vector16(words(1, 1)), []byte{0, 9}, []byte("a.example"), words(0))
	addr := peer(t, func(c *tls.Config) {
		c.EncryptedClientHelloKeys = []tls.EncryptedClientHelloKey{{
			Config: slices.Concat(words(ExtECH), vector16(config)), PrivateKey: key.Bytes(), SendAsRetry: true,
		}}
	})
	c, err := Handshake(dial(t, addr), Config{Hello: New("a.example").Add(ECH())})
	if err != nil || !c.State().RetryConfigs {
		t.Fatalf("%v, %+v", err, c.State())
	}
}

func TestRecords(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sizes []int
		want  string
	}{
		{"whole", nil, "\x16\x03\x01\x00\x05hello"},
		{"two", []int{2}, "\x16\x03\x01\x00\x02he\x16\x03\x01\x00\x03llo"},
		{"empty first", []int{0}, "\x16\x03\x01\x00\x00\x16\x03\x01\x00\x05hello"},
		{"empty last", []int{5, 0}, "\x16\x03\x01\x00\x05hello\x16\x03\x01\x00\x00"},
		{"more than there is", []int{3, 9}, "\x16\x03\x01\x00\x03hel\x16\x03\x01\x00\x02lo"},
	} {
		if got := string(Records([]byte("hello"), tt.sizes...)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := Records(make([]byte, 20000)); len(got) != 20010 {
		t.Errorf("20000 bytes in %d", len(got))
	}
}

// pieces notes the size of each write.
type pieces []int

func (p *pieces) Write(b []byte) (int, error) {
	*p = append(*p, len(b))
	return len(b), nil
}

func TestWrite(t *testing.T) {
	var got pieces
	if err := Write(&got, make([]byte, 10), 1, 0, 3); err != nil || !slices.Equal(got, pieces{1, 1, 3, 5}) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestFields: extensions stand in the order and number that they were given in.
func TestFields(t *testing.T) {
	h := &Hello{Version: 0x0301, Suites: []uint16{0x1301}, Compressions: []byte{1, 0}, SessionID: []byte{9}, Extensions: []Extension{}}
	h.Add(NameList(Name{7, "x"}, Name{0, "\x00\xff."}), Extension{ExtEarlyData, nil}, Extension{ExtEarlyData, []byte{1}})
	want := slices.Concat([]byte{1, 0, 0, 75, 3, 1}, make([]byte, 32), []byte{1, 9, 0, 2, 0x13, 1, 2, 1, 0, 0, 25},
		[]byte{0, 0, 0, 12, 0, 10, 7, 0, 1, 'x', 0, 0, 3, 0, 0xff, '.'}, []byte{0, 42, 0, 0}, []byte{0, 42, 0, 1, 1})
	want[3] = byte(len(want) - 4)
	if got := h.Message(); !bytes.Equal(got[4:], want[4:]) {
		t.Errorf("%x, want %x", got, want)
	}
	if e, ok := h.Clone().Drop(ExtEarlyData).Get(ExtEarlyData); ok {
		t.Errorf("%v is still there", e)
	}
	if len(h.Extensions) != 3 {
		t.Error("a clone changed what it was made of")
	}
	if (&Hello{}).Message()[3] != 2+32+1+2+2 {
		t.Error("a hello without a block of extensions has one")
	}
}

// FuzzServer: no bytes of a server make the client panic or go on for ever.
func FuzzServer(f *testing.F) {
	hello := message(typeServerHello, slices.Concat([]byte{3, 3}, retryRandom[:], []byte{0, 0x13, 1, 0}, vector16(slices.Concat(words(ExtKeyShare, 2, P256), words(ExtVersions, 2, TLS13)))))
	plain := message(typeServerHello, slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0xc0, 0x2f, 0}))
	f.Add(Records(hello))
	f.Add(append(Records(hello), Records(hello)...))
	f.Add(append(Records(plain), Records(message(typeCertificate, []byte{0, 0, 4, 0, 0, 1, 5}))...))
	f.Add(append(Records(plain), Records(message(typeServerKey, []byte{3, 0, 29, 1, 5}))...))
	f.Add([]byte{recordAlert, 3, 3, 0, 2, 2, 40})
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, h := range []*Hello{New("a.example").Share(), New12("a.example")} {
			c, err := Handshake(script{bytes.NewReader(b)}, Config{Hello: h})
			if err == nil {
				t.Fatal("done without a key")
			}
			_ = c.State()
			_ = err.Error()
		}
	})
}

// script is a connection to a server that says the same whatever it is told.
type script struct{ *bytes.Reader }

func (script) Write(b []byte) (int, error)      { return len(b), nil }
func (script) Close() error                     { return nil }
func (script) LocalAddr() net.Addr              { return nil }
func (script) RemoteAddr() net.Addr             { return nil }
func (script) SetDeadline(time.Time) error      { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }
