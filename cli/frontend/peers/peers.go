// Package peers starts the front ends that providers run, nginx and HAProxy, in tests: real programs with
// the configurations that the manual shows.
package peers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Address returns a loopback address that no other test has, as far as chance goes.
func Address() string {
	return fmt.Sprintf("127.%d.%d.%d", 100+mathrand.IntN(100), mathrand.IntN(256), 1+mathrand.IntN(254))
}

// Certificates writes into a directory of the test: ca.pem, and for each name NAME.crt, NAME.key and NAME.pem, which
// is both.
func Certificates(t testing.TB, names ...string) (dir string, roots *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	caKey, caDER := sign(t, "test CA", nil, nil, 1)
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.pem"), block("CERTIFICATE", caDER))
	for i, name := range names {
		key, der := sign(t, name, ca, caKey, int64(i)+2)
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		crt, private := block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)
		path := filepath.Join(dir, name)
		write(t, path+".crt", crt)
		write(t, path+".key", private)
		write(t, path+".pem", append(crt, private...))
	}
	roots = x509.NewCertPool()
	roots.AddCert(ca)
	return dir, roots
}

func sign(t testing.TB, name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey, serial int64) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ca == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage, c.DNSNames = true, true, x509.KeyUsageCertSign, nil, nil
		ca, caKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Nginx starts nginx with a whole configuration file in which no path is relative, and waits until it accepts at addr.
func Nginx(t testing.TB, conf, addr string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "nginx.conf")
	write(t, path, []byte(conf))
	Start(t, addr, program(t, "nginx"), "-p", dir, "-c", path, "-g", "daemon off; error_log stderr; pid "+dir+"/nginx.pid;")
}

// HAProxy starts HAProxy with a configuration file, and waits until it accepts at addr.
func HAProxy(t testing.TB, conf, addr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	write(t, path, []byte(conf))
	Start(t, addr, program(t, "haproxy"), "-db", "-f", path)
}

// OpenSSL starts openssl s_server with these arguments, and waits until it accepts at addr.
func OpenSSL(t testing.TB, addr string, args ...string) {
	t.Helper()
	Start(t, addr, program(t, "openssl"), append([]string{"s_server", "-accept", addr}, args...)...)
}

// program finds a program, also where the path of an ordinary user doesn't lead.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, n := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	if testing.Short() {
		t.Skipf("%s isn't installed", name)
	}
	t.Fatalf("%s isn't installed: make deps", name)
	return ""
}

// Start runs a server until the test ends, and waits until it accepts at addr. What it said is shown when the test fails.
func Start(t testing.TB, addr, path string, args ...string) {
	t.Helper()
	var said output
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(over)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-over:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-over
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), said.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-over:
			t.Fatalf("%s ended", path)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", path, err)
		}
	}
}

// output is what a program says, written by one goroutine and read by another.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write keeps what is said.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

// String returns what was said.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
