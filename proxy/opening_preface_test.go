package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/preface"
)

// serverTLS is the configuration of a database server, with a certificate of its own.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"allowed.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"postgresql"}}
})

// retrying is serverTLS with groups that crypto/tls as a client has no key share for at first.
func retrying() *tls.Config {
	c := serverTLS().Clone()
	c.CurvePreferences = []tls.CurveID{tls.CurveP384}
	return c
}

func clientTLS(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true}
}

// database is a server that notes what it received of connections that brought a byte.
type database struct {
	addr netip.AddrPort
	mu   sync.Mutex
	got  bytes.Buffer
}

// newDatabase serves each connection by talk, which gets what the client sends through a note of it.
func newDatabase(t *testing.T, talk func(c net.Conn)) *database {
	d := new(database)
	d.addr = serve(t, func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(patience))
		talk(&noted{c, d})
		io.Copy(io.Discard, struct{ io.Reader }{&noted{c, d}}) // not by WriteTo, which notes nothing
	})
	return d
}

type noted struct {
	*net.TCPConn
	by *database
}

func (n *noted) Read(b []byte) (int, error) {
	m, err := n.TCPConn.Read(b)
	n.by.mu.Lock()
	defer n.by.mu.Unlock()
	n.by.got.Write(b[:m])
	return m, err
}

func (d *database) received() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.got.String()
}

// over serves TLS on a connection, and sends back what comes inside.
func over(c net.Conn, config *tls.Config) {
	s := tls.Server(c, config)
	if s.Handshake() == nil {
		io.Copy(s, s)
	}
}

// talks checks that a TLS connection carries bytes both ways.
func talks(t *testing.T, c *tls.Conn) {
	t.Helper()
	text := []byte("select 1")
	if _, err := c.Write(text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%q, error %v", got, err)
	}
}

func ended(t *testing.T, w *world, reason policy.Reason) {
	t.Helper()
	eventually(t, "a flow that ended with "+string(reason), func() bool {
		return len(w.log.lines("reason="+string(reason)+" ")) > 0
	})
}

func worldOf(t *testing.T, pin link.Pin, d *database, edit ...func(*link.Service)) *world {
	t.Helper()
	edit = append([]func(*link.Service){pinned, func(s *link.Service) { s.Pin = pin }}, edit...)
	return newWorld(t, Settings{HelloTimeout: 2 * time.Second, DialTimeout: 2 * time.Second},
		service("svc", 7001, d.addr, edit...), endpoint("e", "svc", nextAddr(t)))
}

// sliced writes a connection in small pieces of random size.
type sliced struct {
	net.Conn
	most int
}

func (s sliced) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), 1+mathrand.IntN(s.most))
		if _, err := s.Conn.Write(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// postgresServer agrees to TLS as PostgreSQL does, with its answer.
func postgresServer(answer string, config *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		request := make([]byte, 8)
		if _, err := io.ReadFull(c, request); err != nil || !bytes.Equal(request, preface.PostgresSSLRequest()) {
			return
		}
		io.WriteString(c, answer)
		if answer == "S" {
			over(c, config)
		}
	}
}

// X18: SSLRequest, then a hello with the allowed name, whole and in pieces, and after a HelloRetryRequest too.
func TestPostgres(t *testing.T) {
	gss := []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x30}
	for _, test := range []struct {
		name   string
		config *tls.Config
		most   int
		gss    bool
	}{{"at once", serverTLS(), 1 << 20, false}, {"X28 in pieces", serverTLS(), 3, false},
		{"second hello", retrying(), 1 << 20, false}, {"GSSENCRequest first", serverTLS(), 1 << 20, true}} {
		t.Run(test.name, func(t *testing.T) {
			w := worldOf(t, link.PinPostgres, newDatabase(t, postgresServer("S", test.config)))
			c := sliced{dial(t, w.first()), test.most}
			answer := make([]byte, 1)
			if test.gss {
				c.Write(gss)
				if io.ReadFull(c, answer); answer[0] != 'N' {
					t.Fatalf("answer %q", answer)
				}
			}
			c.Write(preface.PostgresSSLRequest())
			if _, err := io.ReadFull(c, answer); err != nil || answer[0] != 'S' {
				t.Fatalf("answer %q, error %v", answer, err)
			}
			if w.dials(t) != 0 {
				t.Error("dialled before the hello")
			}
			talks(t, tls.Client(c, clientTLS("allowed.example")))
		})
	}
	t.Run("direct TLS", func(t *testing.T) {
		w := worldOf(t, link.PinPostgres, newDatabase(t, func(c net.Conn) { over(c, serverTLS()) }))
		config := clientTLS("allowed.example")
		config.NextProtos = []string{"postgresql"}
		talks(t, tls.Client(dial(t, w.first()), config))
	})
}

// X18, X19: whatever isn't TLS with an allowed name ends before a target is dialled.
func TestPostgresRefuses(t *testing.T) {
	t.Parallel()
	ssl := preface.PostgresSSLRequest()
	for _, test := range []struct {
		name        string
		first, then []byte
		reason      policy.Reason
	}{
		{"X18 denied name", ssl, helloFor(t, "other.example"), policy.NameDenied},
		{"no name", ssl, helloFor(t, ""), policy.NoName},
		{"denied name, direct TLS", helloFor(t, "other.example"), nil, policy.NameDenied},
		{"X19 startup in clear", []byte("\x00\x00\x00\x12\x00\x03\x00\x00user\x00me\x00\x00"), nil, policy.NoTLS},
		{"startup in clear behind the answer", ssl, []byte("\x00\x00\x00\x12\x00\x03\x00\x00user\x00me\x00\x00"), policy.NoTLS},
		{"cancel in clear", []byte{0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2}, nil, policy.NoTLS},
		{"silence behind the answer", ssl, nil, policy.Timeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, postgresServer("S", serverTLS()))
			w := worldOf(t, link.PinPostgres, d)
			c := dial(t, w.first())
			c.Write(test.first)
			if bytes.Equal(test.first, ssl) {
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			c.Write(test.then)
			checkRefused(t, w, c, test.reason)
			if got := d.received(); got != "" {
				t.Errorf("the target received %q", got)
			}
		})
	}
}

// A target that doesn't agree to TLS, or says more than that (CVE-2021-23222), never gets the hello.
func TestPostgresTarget(t *testing.T) {
	for answer, reason := range map[string]policy.Reason{"N": policy.NoTLS, "E\x00\x00\x00\x05\x00": policy.NoTLS, "SX": policy.Malformed} {
		t.Run(answer[:1], func(t *testing.T) {
			d := newDatabase(t, postgresServer(answer, serverTLS()))
			w := worldOf(t, link.PinPostgres, d)
			c := dial(t, w.first())
			c.Write(preface.PostgresSSLRequest())
			io.ReadFull(c, make([]byte, 1))
			c.Write(helloFor(t, "allowed.example"))
			if !isReset(c) {
				t.Error("not reset")
			}
			ended(t, w, reason)
			if got := d.received(); got != string(preface.PostgresSSLRequest()) {
				t.Errorf("the target received %q", got)
			}
		})
	}
}

var (
	mysqlGreeting = func(able uint16) string {
		body := "\x0a8.4.0\x00\x01\x00\x00\x00abcdefgh\x00" + string(binary.LittleEndian.AppendUint16(nil, able)) +
			"\x21\x02\x00\xff\xc7\x15" + strings.Repeat("\x00", 10) + "abcdefghijkl\x00mysql_native_password\x00"
		return string([]byte{byte(len(body)), 0, 0, 0}) + body
	}
	mysqlTLS     = mysqlGreeting(0xffff)
	mysqlRequest = append([]byte{32, 0, 0, 1, 0x05, 0xae, 0xff, 0x01, 0, 0, 0, 1, 33}, make([]byte, 23)...)
)

func mysqlServer(greeting string, config *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, greeting)
		if _, err := io.ReadFull(c, make([]byte, len(mysqlRequest))); err == nil {
			over(c, config)
		}
	}
}

// X28: the greeting, the request for TLS and the hello, whole and in pieces.
func TestMySQL(t *testing.T) {
	for _, test := range []struct {
		name   string
		config *tls.Config
		most   int
	}{{"at once", serverTLS(), 1 << 20}, {"X28 in pieces", serverTLS(), 3}, {"second hello", retrying(), 1 << 20}} {
		t.Run(test.name, func(t *testing.T) {
			w := worldOf(t, link.PinMySQL, newDatabase(t, mysqlServer(mysqlTLS, test.config)))
			c := sliced{dial(t, w.first()), test.most}
			greeting := make([]byte, len(mysqlTLS))
			if _, err := io.ReadFull(c, greeting); err != nil || string(greeting) != mysqlTLS {
				t.Fatalf("greeting %q, error %v", greeting, err)
			}
			c.Write(mysqlRequest)
			talks(t, tls.Client(c, clientTLS("allowed.example")))
		})
	}
}

// X28, X29: nothing of a denied client reaches the target, its request for TLS neither.
func TestMySQLRefuses(t *testing.T) {
	t.Parallel()
	login := append([]byte{60, 0, 0, 1, 0x05, 0xa6, 0xff, 0x01}, make([]byte, 56)...)
	for _, test := range []struct {
		name   string
		send   []byte
		reason policy.Reason
	}{
		{"X28 denied name", append(bytes.Clone(mysqlRequest), helloFor(t, "other.example")...), policy.NameDenied},
		{"no name", append(bytes.Clone(mysqlRequest), helloFor(t, "")...), policy.NoName},
		{"X29 login without TLS", login, policy.NoTLS},
		{"login in clear behind the request", append(bytes.Clone(mysqlRequest), login...), policy.NoTLS},
		{"X30 silence", nil, policy.Timeout},
		{"X30 silence behind the request", mysqlRequest, policy.Timeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t, mysqlServer(mysqlTLS, serverTLS()))
			w := worldOf(t, link.PinMySQL, d)
			c := dial(t, w.first())
			io.ReadFull(c, make([]byte, len(mysqlTLS)))
			c.Write(test.send)
			if !isReset(c) {
				t.Error("not reset")
			}
			ended(t, w, test.reason)
			if got := d.received(); got != "" || len(w.log.lines("flow refused")) != 1 {
				t.Errorf("the target received %q", got)
			}
		})
	}
	t.Run("a target without TLS", func(t *testing.T) {
		w := worldOf(t, link.PinMySQL, newDatabase(t, mysqlServer(mysqlGreeting(0xf7ff), serverTLS())))
		if c, err := net.Dial("tcp", w.first()); err == nil { // else the reset came at once
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("the client received %q", got)
			}
			c.Close()
		}
		ended(t, w, policy.NoTLS)
	})
	t.Run("a target that greets with an error", func(t *testing.T) {
		const full = "\x17\x00\x00\x00\xff\x10\x04Too many connections"
		d := newDatabase(t, func(c net.Conn) { io.WriteString(c, full) })
		w := worldOf(t, link.PinMySQL, d)
		c := dial(t, w.first())
		if got, err := io.ReadAll(c); string(got) != full || err != nil {
			t.Errorf("%q, error %v", got, err)
		}
		c.Close()
		ended(t, w, policy.Target)
	})
}

// silentClients is how many clients X30 speaks of.
const silentClients = 1000

// X30: a thousand clients of one source that take the greeting and say nothing hold so many connections of the target and no more, and
// they let go of them at the deadline.
func TestMySQLSilentClients(t *testing.T) {
	w := worldOf(t, link.PinMySQL, newDatabase(t, mysqlServer(mysqlTLS, serverTLS())))
	began := time.Now()
	for range silentClients {
		if c, err := net.Dial("tcp", w.first()); err == nil { // else the reset of one beyond came at once
			defer c.Close()
		}
	}
	refused := func(why policy.Reason) float64 {
		return max(0, w.metric(t, "postern_proxy_refused_total", string(why)))
	}
	eventually(t, "those beyond are refused", func() bool {
		return refused(policy.Limit)+refused(policy.Timeout)+maxUndecided >= silentClients
	})
	rounds := 1 + int(time.Since(began)/w.proxy.settings.Load().HelloTimeout) // on a slow machine some come when the first have let go
	late := 0.0
	eventually(t, "the others are released", func() bool {
		late = refused(policy.Timeout)
		return refused(policy.Limit)+late == silentClients
	})
	if n := w.dials(t); n != late || n < maxUndecided || n > float64(rounds*maxUndecided) {
		t.Errorf("%v dials in %d rounds, %v released", n, rounds, late)
	}
	c := dial(t, w.first())
	if _, err := io.ReadFull(c, make([]byte, len(mysqlTLS))); err != nil {
		t.Errorf("after them: %v", err)
	}
}
