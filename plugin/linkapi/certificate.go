package linkapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/internal/wholefile"
)

// How long a certificate of our own is good, and how long before its end the next one is made.
const (
	ownLife  = 365 * 24 * time.Hour
	ownRenew = 30 * 24 * time.Hour
)

// certificate is the pair that the API shows: of files that somebody else keeps, or one that it makes
// itself. It is looked at once a second. A pair that can't be read leaves the one before in force.
type certificate struct {
	cert, key string
	names     []string // that an own one is for; nil: the files are somebody else's
	log       *slog.Logger
	metrics   *metrics

	reload    sync.Mutex
	seen      [2]fs.FileInfo // guarded by reload
	complaint string         // guarded by reload: what was logged last
	pair      atomic.Pointer[tls.Certificate]
}

// open loads the pair, and makes it first where it is our own. The error names the path.
func (c *certificate) open() error {
	c.reload.Lock()
	defer c.reload.Unlock()
	return c.load()
}

// load is called with the lock held.
func (c *certificate) load() error {
	var seen [2]fs.FileInfo
	for i, path := range []string{c.cert, c.key} {
		var err error
		if seen[i], err = os.Stat(path); err != nil && c.names == nil {
			return err
		}
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if c.names != nil && (err != nil || !c.serves(pair.Leaf)) {
		return c.renew()
	}
	if err != nil {
		return fmt.Errorf("%s with %s: %w", c.cert, c.key, err)
	}
	c.seen = seen
	c.pair.Store(&pair)
	c.metrics.expiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	return nil
}

// serves reports whether a certificate of our own still does.
func (c *certificate) serves(leaf *x509.Certificate) bool {
	if time.Until(leaf.NotAfter) < ownRenew {
		return false
	}
	return !slices.ContainsFunc(c.names, func(n string) bool { return leaf.VerifyHostname(n) != nil })
}

// renew makes a pair of our own. The new key is in place before the certificate: whoever reads in between
// finds a pair that doesn't fit, and tries again.
func (c *certificate) renew() error {
	certPEM, keyPEM, err := selfSigned(c.names, time.Now())
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path string
		text []byte
		mode fs.FileMode
	}{{c.key, keyPEM, 0o600}, {c.cert, certPEM, 0o644}} {
		if err := wholefile.Replace(f.path, f.mode, wholefile.Text(f.text)); err != nil {
			return err
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return err
	}
	c.pair.Store(&pair)
	c.seen = [2]fs.FileInfo{}
	c.metrics.expiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	c.log.Info("made a certificate for the control API; clients have to trust it", "file", c.cert, "names", fmt.Sprint(c.names), "until", pair.Leaf.NotAfter.Format(time.DateOnly))
	return nil
}

// look loads the pair again if a file has changed, or an own one ends soon.
func (c *certificate) look() {
	c.reload.Lock()
	defer c.reload.Unlock()
	if !c.changed() {
		return
	}
	err := c.load()
	if err == nil {
		c.complaint = ""
		c.metrics.reloads.WithLabelValues("loaded").Inc()
		c.log.Info("certificate of the control API reloaded", "file", c.cert, "until", c.pair.Load().Leaf.NotAfter.Format(time.DateOnly))
		return
	}
	if err.Error() != c.complaint {
		c.complaint = err.Error()
		c.metrics.reloads.WithLabelValues("failed").Inc()
		c.log.Error("certificate of the control API not reloaded, the earlier one stays in force", "err", err)
	}
}

func (c *certificate) changed() bool {
	for i, path := range []string{c.cert, c.key} {
		info, err := os.Stat(path)
		old := c.seen[i]
		if err != nil || old == nil || !os.SameFile(info, old) || !info.ModTime().Equal(old.ModTime()) || info.Size() != old.Size() {
			return true
		}
	}
	return c.names != nil && !c.serves(c.pair.Load().Leaf)
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil }

// selfSigned returns a certificate for names and addresses, and its key, as PEM. It is its own authority,
// for no other name, so that clients can be told to trust the file.
func selfSigned(names []string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Postern control API", SerialNumber: serial.Text(16)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(ownLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
