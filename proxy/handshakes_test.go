package proxy

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/hello/rawhello"
)

// paced writes the first bytes of a connection in two segments, with a pause between them.
type paced struct {
	net.Conn
	pause time.Duration
	begun bool
}

func (p *paced) Write(b []byte) (int, error) {
	if p.begun {
		return p.Conn.Write(b)
	}
	p.begun = true
	half := len(b) / 2
	if n, err := p.Conn.Write(b[:half]); err != nil {
		return n, err
	}
	time.Sleep(p.pause)
	n, err := p.Conn.Write(b[half:])
	return half + n, err
}

// X08, X11, X13: honest clients of crypto/tls come through, whatever the server asks of them.
func TestRealHandshakes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		server  *tls.Config
		client  func(net.Conn) net.Conn
		edit    func(*tls.Config)
		retried bool
	}{
		"TLS 1.3":                          {server: serverTLS()},
		"TLS 1.2":                          {server: serverTLS(), edit: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }},
		"second hello":                     {server: retrying(), retried: true},
		"X08 second hello, small pieces":   {server: retrying(), retried: true, client: func(c net.Conn) net.Conn { return sliced{c, 40} }},
		"X11 ML-KEM in two segments":       {server: serverTLS(), client: func(c net.Conn) net.Conn { return &paced{Conn: c, pause: 200 * time.Millisecond} }},
		"X11 ML-KEM, server without it":    {server: classic(), client: func(c net.Conn) net.Conn { return &paced{Conn: c, pause: 200 * time.Millisecond} }},
		"X11 another ML-KEM in the second": {server: postQuantum(), retried: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldOf(t, link.PinTLS, newDatabase(t, func(c net.Conn) { over(c, test.server) }))
			var conn net.Conn = dial(t, w.first())
			if test.client != nil {
				conn = test.client(conn)
			}
			config := clientTLS("allowed.example")
			if test.edit != nil {
				test.edit(config)
			}
			c := tls.Client(conn, config)
			talks(t, c)
			if c.ConnectionState().HelloRetryRequest != test.retried {
				t.Errorf("a second hello was asked for: %v", !test.retried)
			}
		})
	}
}

// classic is serverTLS without post-quantum groups, postQuantum with nothing but one that few clients begin with.
func classic() *tls.Config {
	c := serverTLS().Clone()
	c.CurvePreferences = []tls.CurveID{tls.X25519}
	return c
}

func postQuantum() *tls.Config {
	c := serverTLS().Clone()
	c.CurvePreferences = []tls.CurveID{tls.SecP256r1MLKEM768}
	return c
}

// X13: a real server asks for a second hello, and a client sends another one. The server has nothing but the first.
func TestChangedSecondHello(t *testing.T) {
	t.Parallel()
	again := rawhello.New("allowed.example").Share(rawhello.P384).Message() // as long as all second ones of one name
	for name, test := range map[string]struct {
		cfg  rawhello.Config // but for the hello
		want policy.Reason   // empty: it is carried
	}{
		"the same":               {},
		"the same, bytewise":     {cfg: rawhello.Config{SecondSegments: rawhello.Every(1, again)}},
		"X09 the same, records":  {cfg: rawhello.Config{SecondRecords: rawhello.Every(9, again)}},
		"X13 another name":       {cfg: second(rawhello.Names("other.example")), want: policy.HelloChanged},
		"X13 bytewise":           {cfg: rawhello.Config{Second: second(rawhello.Names("other.example")).Second, SecondSegments: rawhello.Every(1, again)}, want: policy.HelloChanged},
		"X13 in records":         {cfg: rawhello.Config{Second: second(rawhello.Names("other.example")).Second, SecondRecords: []int{1, 3, 50}}, want: policy.HelloChanged},
		"X13 two names":          {cfg: second(rawhello.Names("allowed.example", "other.example")), want: policy.Malformed},
		"X13 encrypted":          {cfg: second(rawhello.ECH()), want: policy.HelloChanged},
		"X13 without a name":     {cfg: rawhello.Config{Second: func(h *rawhello.Hello) *rawhello.Hello { return h.Drop(rawhello.ExtServerName) }}, want: policy.NoName},
		"X13 second name beside": {cfg: rawhello.Config{Second: func(h *rawhello.Hello) *rawhello.Hello { return h.Add(rawhello.Names("other.example")) }}, want: policy.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, func(c net.Conn) { over(c, retrying()) })
			w := worldOf(t, link.PinTLS, d)
			test.cfg.Hello = rawhello.New("allowed.example").Share(rawhello.X25519)
			c, err := rawhello.Handshake(dial(t, w.first()), test.cfg)
			if !c.State().Retried {
				t.Fatalf("no second hello was asked for: %v", err)
			}
			if test.want == "" {
				if _, werr := c.Write([]byte("select 1")); err != nil || werr != nil {
					t.Fatal(err, werr)
				}
				if _, err := c.Read(make([]byte, 8)); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !isResetError(err) {
				t.Errorf("the client wasn't reset: %v", err)
			}
			ended(t, w, test.want)
			if got, want := d.received(), string(rawhello.Records(test.cfg.Hello.Message())); got != want {
				t.Errorf("the server received %d bytes, the first hello has %d", len(got), len(want))
			}
		})
	}
}

// second has an extension put into the second hello, in the place of the one of its type.
func second(e rawhello.Extension) rawhello.Config {
	return rawhello.Config{Second: func(h *rawhello.Hello) *rawhello.Hello { return h.Set(e) }}
}

// echKey makes a key for Encrypted ClientHello, and the configuration that servers publish of it (RFC 9849, section 4).
func echKey(t *testing.T, public string) (tls.EncryptedClientHelloKey, []byte) {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	vector := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	contents := slices.Concat(
		[]byte{7, 0, 0x20}, vector(key.PublicKey().Bytes()), // config ID; DHKEM(X25519, HKDF-SHA256)
		vector([]byte{0, 1, 0, 1}), // HKDF-SHA256, AES-128-GCM
		[]byte{32, byte(len(public))}, []byte(public), vector(nil))
	config := append([]byte{0xfe, 0x0d}, vector(contents)...)
	return tls.EncryptedClientHelloKey{Config: config, PrivateKey: key.Bytes(), SendAsRetry: true}, vector(config)
}

// X12: Encrypted ClientHello as crypto/tls speaks it, on both sides.
func TestRealECH(t *testing.T) {
	t.Parallel()
	const inner = "secret.example" // what the server may see, and we can't
	allow := func(s *link.Service) { s.ECHOuter = true }
	for name, test := range map[string]struct {
		outer  string
		edit   []func(*link.Service)
		server func() *tls.Config
		stale  bool          // the server has another key by now
		want   policy.Reason // empty: it is carried
	}{
		"X12 by default":               {outer: "allowed.example", server: serverTLS, want: policy.ECHDenied},
		"X12 allowed":                  {outer: "allowed.example", server: serverTLS, edit: []func(*link.Service){allow}},
		"X12 X13 allowed, second one":  {outer: "allowed.example", server: retrying, edit: []func(*link.Service){allow}},
		"X12 allowed, of a key of old": {outer: "allowed.example", server: serverTLS, edit: []func(*link.Service){allow}, stale: true},
		"X12 allowed, outer name not":  {outer: "other.example", server: serverTLS, edit: []func(*link.Service){allow}, want: policy.NameDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, list := echKey(t, test.outer)
			server := test.server().Clone()
			server.EncryptedClientHelloKeys = []tls.EncryptedClientHelloKey{key}
			if test.stale {
				_, list = echKey(t, test.outer)
			}
			names := make(chan string, 2)
			server.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
				names <- i.ServerName
				return nil, nil
			}
			w := worldOf(t, link.PinTLS, newDatabase(t, func(c net.Conn) { over(c, server) }), test.edit...)
			raw := dial(t, w.first())
			config := clientTLS(inner)
			config.MinVersion, config.EncryptedClientHelloConfigList = tls.VersionTLS13, list
			config.EncryptedClientHelloRejectionVerify = func(tls.ConnectionState) error { return nil }
			c := tls.Client(raw, config)
			err := c.Handshake()
			if test.want != "" {
				if err == nil {
					t.Fatal("the handshake was done")
				}
				checkRefused(t, w, nil, test.want)
				return
			}
			want := inner
			var rejected *tls.ECHRejectionError
			if test.stale {
				if want = test.outer; !errors.As(err, &rejected) || len(rejected.RetryConfigList) == 0 {
					t.Fatalf("no rejection with configurations: %v", err)
				}
			} else if err != nil || !c.ConnectionState().ECHAccepted {
				t.Fatalf("not accepted: %v", err)
			}
			if got := <-names; got != want {
				t.Errorf("the server sees %q", got)
			}
			if !test.stale {
				talks(t, c)
			}
			raw.Close()
			eventually(t, "the line has the outer name alone", func() bool {
				return len(w.log.lines("flow ended", "sni="+test.outer)) == 1 && len(w.log.lines(inner)) == 0
			})
		})
	}
}
