package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"
)

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	a.cert = a.sign(t, template, &a.key.PublicKey, template)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(t testing.TB, template *x509.Certificate, public any, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf makes a certificate for a client or a server, good for an hour. cn is "CN=name".
func (a *authority) leaf(t testing.TB, cn string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: cn[len("CN="):]},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	cert := a.sign(t, template, &key.PublicKey, a.cert)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// file writes the authority's certificate and returns the path.
func (a *authority) file(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})))
	return path
}

// chains returns what a TLS server that trusts the authority verifies of a client certificate.
func (a *authority) chains(t testing.TB, leaf tls.Certificate) [][]*x509.Certificate {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return handshake(t, a, leaf, pool)
}

// handshake connects with a client certificate and returns the chains that the server has verified.
func handshake(t testing.TB, server *authority, client tls.Certificate, clientCAs *x509.CertPool) [][]*x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(server.cert)
	cert := server.leaf(t, "CN=server", func(c *x509.Certificate) { c.DNSNames = []string{"server.test"} })
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	s := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clientCAs})
	ended := make(chan error, 1)
	go func() {
		c := tls.Client(near, &tls.Config{ServerName: "server.test", RootCAs: roots,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }})
		err := c.Handshake()
		if err == nil {
			_, _ = c.Read(make([]byte, 1)) // takes the session tickets, until the pipe is closed
		}
		ended <- err
	}()
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	chains := s.ConnectionState().VerifiedChains
	near.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return chains
}

func TestCertificate(t *testing.T) {
	corp, other := newAuthority(t, "corp"), newAuthority(t, "other")
	uri, err := url.Parse("spiffe://contoso.example/ci")
	if err != nil {
		t.Fatal(err)
	}
	named := func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "named", Organization: []string{"Contoso"}}
		c.DNSNames, c.URIs, c.EmailAddresses = []string{"ci.contoso.example"}, []*url.URL{uri}, []string{"ci@contoso.example"}
	}
	pinned := corp.leaf(t, "CN=pinned", nil)
	sum := sha256.Sum256(pinned.Certificate[0])
	text := who(`{"name": "pinned", "tenant": "contoso", "certificates": [{"sha256": "`+hex.EncodeToString(sum[:])+`"}]},
		{"name": "subject", "tenant": "contoso", "certificates": [{"authority": "corp", "subject": "CN=named,O=Contoso"}]},
		{"name": "dns", "tenant": "contoso", "certificates": [{"authority": "corp", "san": "dns:Dns.contoso.example"}]},
		{"name": "uri", "tenant": "contoso", "certificates": [{"authority": "corp", "san": "uri:spiffe://contoso.example/job"}]},
		{"name": "email", "tenant": "contoso", "certificates": [{"authority": "corp", "san": "email:job@contoso.example"}]},
		{"name": "both", "tenant": "contoso", "certificates": [{"authority": "other", "subject": "CN=both", "san": "dns:both.example"}]}`,
		`"authorities": [{"name": "corp", "file": "`+corp.file(t)+`"}, {"name": "other", "file": "`+other.file(t)+`"}]`)
	c := newClock()
	d := start(t, put(t, text), Options{Clock: c.now})
	for _, tc := range []struct {
		name string
		leaf tls.Certificate
		want string // "": refused
	}{
		{"fingerprint", pinned, "pinned"},
		{"same name, other key", corp.leaf(t, "CN=pinned", nil), ""},
		{"subject", corp.leaf(t, "CN=x", named), "subject"},
		{"subject of the other authority", other.leaf(t, "CN=x", named), ""},
		{"part of a subject", corp.leaf(t, "CN=named", nil), ""},
		{"two common names", corp.leaf(t, "CN=x", func(c *x509.Certificate) {
			named(c)
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "evil"}, {Type: []int{2, 5, 4, 3}, Value: "named"}}
		}), ""},
		{"DNS name", corp.leaf(t, "CN=x", func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "dns.contoso.example"} }), "dns"},
		{"wildcard", corp.leaf(t, "CN=x", func(c *x509.Certificate) { c.DNSNames = []string{"*.contoso.example"} }), ""},
		{"URI", corp.leaf(t, "CN=x", func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "contoso.example", Path: "/job"}}
		}), "uri"},
		{"email", corp.leaf(t, "CN=x", func(c *x509.Certificate) { c.EmailAddresses = []string{"job@contoso.example"} }), "email"},
		{"one of two conditions", other.leaf(t, "CN=both", nil), ""},
		{"both conditions", other.leaf(t, "CN=both", func(c *x509.Certificate) { c.DNSNames = []string{"both.example"} }), "both"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chains := handshake(t, corp, tc.leaf, d.ClientCAs())
			got, err := d.Authenticate(t.Context(), Credential{Chains: chains})
			if got.Name != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%q, %v, want %q", got.Name, err, tc.want)
			}
		})
	}
	chains := handshake(t, corp, pinned, d.ClientCAs())
	c.add(2 * time.Hour)
	if _, err := d.Authenticate(t.Context(), Credential{Chains: chains}); err != ErrUnauthenticated {
		t.Errorf("a certificate that ended while its connection lived: %v", err)
	}
	if _, err := d.Authenticate(t.Context(), Credential{Chains: [][]*x509.Certificate{{}}}); err != ErrUnauthenticated {
		t.Errorf("an empty chain: %v", err)
	}
}

// TestAuthorityIsTakenBack: connections whose chain ends in an authority that was taken out of the file.
func TestAuthorityIsTakenBack(t *testing.T) {
	corp, next := newAuthority(t, "corp"), newAuthority(t, "corp")
	path := put(t, "")
	for _, ca := range []*authority{corp, next} {
		write(t, path, who(`{"name": "ci", "tenant": "contoso", "certificates": [{"authority": "corp", "subject": "CN=ci"}]}`,
			`"authorities": [{"name": "corp", "file": "`+ca.file(t)+`"}]`))
		d := start(t, path, Options{})
		_, err := d.Authenticate(t.Context(), Credential{Chains: corp.chains(t, corp.leaf(t, "CN=ci", nil))})
		if (err == nil) != (ca == corp) {
			t.Errorf("with the first authority's file %v: %v", ca == corp, err)
		}
	}
}

func TestAuthorityFiles(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "a key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
		"damaged": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"} {
		t.Run(name, func(t *testing.T) {
			if all, err := certificatesOf([]byte(text)); err == nil {
				t.Errorf("accepted: %v", all)
			}
		})
	}
}
