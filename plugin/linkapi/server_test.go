package linkapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"go.uber.org/goleak"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/internal/wholefile"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a directory with an identities file, and a node.
type site struct {
	*testing.T
	dir   string
	token string
	node  *node.Node
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, dir: t.TempDir()}
	file := filepath.Join(s.dir, "identities.json")
	s.must(identity.Init(file))
	made, err := identity.CreateToken(t.Context(), file, identity.Holder{Identity: "admin", Tenant: "operator"})
	s.must(err)
	s.token = made.Secret
	s.node, err = node.Open(t.Context(), s.config())
	s.must(err)
	t.Cleanup(func() { s.must(s.node.Close()) })
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) config() node.Config {
	return node.Config{State: node.Place{Bolt: filepath.Join(s.dir, "state.db")}, Declaration: link.Declare{Declaration: "test"}}
}

// server returns the API of one configuration on an address.
func (s *site) server(address string) *server {
	return &server{
		settings: settings{Listen: netip.MustParseAddrPort(address), Identities: filepath.Join(s.dir, "identities.json")},
		config:   func() (node.Config, error) { return s.config(), nil }, zones: link.DefaultZones, exits: new(handover.Draft).Exits, log: slog.New(slog.DiscardHandler),
	}
}

// start prepares and commits a server, and ends it with the test.
func (s *site) start(a *server, before node.API) *server {
	s.Helper()
	s.must(a.Prepare(s.node, before))
	a.Commit()
	s.Cleanup(func() { s.end(a) })
	return a
}

func (s *site) end(a *server) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.must(a.Close(ctx))
}

// client trusts the certificate file of the site, as a user is told to.
func (s *site) client() *http.Client {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "postern-api.crt"))
	s.must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}, Timeout: 20 * time.Second}
	s.Cleanup(c.CloseIdleConnections)
	return c
}

func (s *site) get(c *http.Client, address string) (int, error) {
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "https://"+address+"/subscriptions?api-version=2022-01-01", nil)
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestServe: a first run makes a certificate that clients can be told to trust, and serves with it.
func TestServe(t *testing.T) {
	s := newSite(t)
	at := freeport.Addr(s, "127.0.0.1")
	s.start(s.server(at), nil)
	c := s.client()
	if code, err := s.get(c, at); err != nil || code != 200 {
		t.Errorf("%d, %v", code, err)
	}
	_, port, _ := net.SplitHostPort(at)
	if code, err := s.get(c, "localhost:"+port); err != nil || code != 200 {
		t.Errorf("localhost: %d, %v", code, err)
	}
	info, err := os.Stat(filepath.Join(s.dir, "postern-api.key"))
	s.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	resp, err := c.Get("http://" + at)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: %d", resp.StatusCode)
		}
	}
}

// TestStatus: an operator is told which program it is.
func TestStatus(t *testing.T) {
	was := caddy.AppVersion
	caddy.AppVersion = "1.2.3+abcdef0"
	t.Cleanup(func() { caddy.AppVersion = was })
	s := newSite(t)
	root, err := identity.CreateToken(t.Context(), filepath.Join(s.dir, "identities.json"),
		identity.Holder{Identity: "root", Tenant: "operator", Roles: []control.Grant{{Subscription: "*", Role: control.Owner}}})
	s.must(err)
	at := freeport.Addr(s, "127.0.0.1")
	s.start(s.server(at), nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+at+"/providers/Postern.Network/status?api-version=2026-11-01", nil)
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+root.Secret)
	resp, err := s.client().Do(req)
	s.must(err)
	defer resp.Body.Close()
	var got struct{ Version, Build string }
	s.must(json.NewDecoder(resp.Body).Decode(&got))
	if got.Version != "1.2.3+abcdef0" || got.Build == "" {
		t.Errorf("status %d: %+v", resp.StatusCode, got)
	}
}

// TestReload: the same address goes on under the next configuration without a moment in between, an
// abandoned one leaves no trace, another address is opened beside.
func TestReload(t *testing.T) {
	s := newSite(t)
	at := freeport.Addr(s, "127.0.0.1")
	first := s.server(at)
	s.must(first.Prepare(s.node, nil))
	first.Commit()
	c := s.client()

	abandoned := s.server(at)
	s.must(abandoned.Prepare(s.node, first))
	abandoned.Abandon()
	if code, err := s.get(c, at); err != nil || code != 200 {
		t.Errorf("after an abandoned reload: %d, %v", code, err)
	}
	second := s.server(at)
	s.must(second.Prepare(s.node, first))
	second.Commit()
	s.end(first)
	if code, err := s.get(c, at); err != nil || code != 200 {
		t.Errorf("after a reload: %d, %v", code, err)
	}
	other := freeport.Addr(s, "127.0.0.1")
	third := s.start(s.server(other), second)
	s.end(second)
	if code, err := s.get(c, other); err != nil || code != 200 {
		t.Errorf("at another address: %d, %v", code, err)
	}
	if _, err := net.Dial("tcp", at); err == nil {
		t.Error("the first address is still open")
	}
	taken := s.server(third.Listen.String())
	if err := taken.Prepare(s.node, nil); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("a taken address: %v", err)
	}
}

// TestEndpointAddress is C10 for what was made through the API.
func TestEndpointAddress(t *testing.T) {
	s := newSite(t)
	snapshot, err := s.node.Store().Load(t.Context())
	s.must(err)
	_, err = s.node.Store().Commit(t.Context(), snapshot, entry(), link.PutNetwork{Network: link.Network{ID: "a/b/c", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		Pools: []netip.Prefix{netip.MustParsePrefix("127.9.0.0/24")}}})
	s.must(err)
	deadline := time.Now().Add(10 * time.Second)
	for s.node.Snapshot() == nil || s.node.Snapshot().Network("a/b/c") == nil {
		if time.Now().After(deadline) {
			t.Fatal("the node has not installed the network")
		}
		time.Sleep(time.Millisecond)
	}
	a := s.server("127.9.0.7:8443")
	if err := a.Prepare(s.node, nil); err == nil || !strings.Contains(err.Error(), "127.9.0.0/24") {
		t.Errorf("%v, want it refused", err)
	}
	// One that listens there already goes on, and says so, once.
	b, log := s.server("127.9.0.7:0"), new(bytes.Buffer)
	b.log, b.snapshot = slog.New(slog.NewTextHandler(log, nil)), s.node.Snapshot
	if told := b.tellAddress(b.tellAddress("")); !strings.Contains(told, "127.9.0.0/24") || strings.Count(log.String(), "level=ERROR") != 1 {
		t.Errorf("told %q, logged %s", told, log)
	}
}

// TestMissingFiles is C12: what was there when the Corefile was read may be gone, or be nonsense.
func TestMissingFiles(t *testing.T) {
	s := newSite(t)
	bad := filepath.Join(s.dir, "bad.pem")
	s.must(os.WriteFile(bad, []byte("nonsense"), 0o600))
	for name, change := range map[string]func(*server){
		"certificate": func(a *server) { a.Cert, a.Key = filepath.Join(s.dir, "none.pem"), bad },
		"pair":        func(a *server) { a.Cert, a.Key = bad, bad },
		"client_ca":   func(a *server) { a.ClientCA = bad },
		"identities":  func(a *server) { a.Identities = bad },
	} {
		a := s.server("127.0.0.1:0")
		change(a)
		if err := a.Prepare(s.node, nil); err == nil || !strings.Contains(err.Error(), s.dir) {
			t.Errorf("%s: %v, want an error with the path", name, err)
		}
	}
}

// TestCertificateReload: a pair that is put in the place of another is served without a restart, one
// that is wrong isn't.
func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificate{cert: filepath.Join(dir, "c.pem"), key: filepath.Join(dir, "k.pem"), log: slog.New(slog.DiscardHandler), metrics: m}
	put := func(names ...string) {
		t.Helper()
		cert, key, err := selfSigned(names, time.Now())
		if err == nil {
			err = wholefile.Replace(c.key, 0o600, wholefile.Text(key))
		}
		if err == nil {
			err = wholefile.Replace(c.cert, 0o600, wholefile.Text(cert))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("one.example")
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	want := func(name string) {
		t.Helper()
		pair, err := c.get(nil)
		if err != nil || !slices.Equal(pair.Leaf.DNSNames, []string{name}) {
			t.Errorf("serves %v, %v, want %s", pair.Leaf.DNSNames, err, name)
		}
	}
	c.look()
	want("one.example")
	put("two.example")
	c.look()
	want("two.example")
	if err := os.WriteFile(c.key, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.look()
	want("two.example")
	if c.complaint == "" {
		t.Error("nothing was said")
	}
	put("three.example")
	c.look()
	want("three.example")
}

// TestOwnCertificate: one that ends soon, or isn't for a name that is asked for now, is made anew.
func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	open := func(names ...string) *certificate {
		t.Helper()
		c := &certificate{cert: filepath.Join(dir, "c.pem"), key: filepath.Join(dir, "k.pem"), names: names, log: slog.New(slog.DiscardHandler), metrics: m}
		if err := c.open(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	serial := func(c *certificate) string { return c.pair.Load().Leaf.SerialNumber.String() }
	first := serial(open("localhost", "127.0.0.1"))
	if again := serial(open("localhost", "127.0.0.1")); again != first {
		t.Error("a second start has made another certificate")
	}
	second := serial(open("localhost", "postern.example"))
	if second == first {
		t.Error("a new name has the old certificate")
	}
	cert, key, err := selfSigned([]string{"localhost"}, time.Now().Add(-ownLife+ownRenew-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{"c.pem": cert, "k.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, path), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c := open("localhost"); time.Until(c.pair.Load().Leaf.NotAfter) < ownLife-time.Hour*24 {
		t.Error("a certificate that ends soon stays")
	}
}

// TestSlowClients is A16: headers at one byte a time and a body that stalls are cut at their deadlines, and hold
// nobody up meanwhile. The deadlines are shortened; TestDeadlines has the real ones.
func TestSlowClients(t *testing.T) {
	s := newSite(t)
	at := freeport.Addr(s, "127.0.0.1")
	a := s.server(at)
	s.must(a.Prepare(s.node, nil))
	a.http.ReadHeaderTimeout, a.http.ReadTimeout = 300*time.Millisecond, 300*time.Millisecond
	a.Commit()
	defer s.end(a)
	client := s.client()
	config := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	open := func(text string) net.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", at, config)
		s.must(err)
		_, err = io.WriteString(c, text)
		s.must(err)
		return c
	}
	var slow []net.Conn
	for range 20 {
		slow = append(slow,
			open("GET / HTTP/1.1\r\nHost: localhost\r\nX-Sl"),
			open(fmt.Sprintf("PUT /subscriptions/x/resourceGroups/y?api-version=2022-01-01 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", s.token)))
	}
	silent, err := net.Dial("tcp", at) // no handshake
	s.must(err)
	slow = append(slow, silent)
	if code, err := s.get(client, at); err != nil || code != 200 {
		t.Errorf("beside slow clients: %d, %v", code, err)
	}
	for _, c := range slow {
		s.must(c.SetReadDeadline(time.Now().Add(10 * time.Second)))
		if _, err := io.Copy(io.Discard, c); err != nil && os.IsTimeout(err) {
			t.Error("a slow client is still connected after 10 s")
		}
		_ = c.Close()
	}
}

// TestDeadlines are those that operators are told.
func TestDeadlines(t *testing.T) {
	s := newSite(t)
	a := s.server("127.0.0.1:0")
	s.must(a.Prepare(s.node, nil))
	defer a.Abandon()
	if h := a.http; h.ReadHeaderTimeout != 10*time.Second || h.ReadTimeout != 10*time.Second || h.MaxHeaderBytes != 64<<10 || h.TLSConfig.MinVersion < tls.VersionTLS12 {
		t.Errorf("%+v", h)
	}
}

// TestOwnListeners is A22 for what this process listens on.
func TestOwnListeners(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l6, err := net.Listen("tcp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l6.Close()
	all := ownListeners()
	for _, want := range []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String()), netip.MustParseAddrPort(l6.Addr().String())} {
		if !slices.Contains(all, want) {
			t.Errorf("%v lacks %s", all, want)
		}
	}
}

func entry() store.Entry {
	return store.Entry{ID: "test", At: time.Now(), Actor: "test", Action: "test"}
}
