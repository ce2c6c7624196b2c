package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"github.com/postern-link/postern/internal/etcdtest"
	"github.com/postern-link/postern/node"
)

// onEtcd rewrites an example with etcd so that it finds a cluster: one member in this process, which asks
// for certificates, with a state in it.
func onEtcd(t *testing.T, text string) string {
	t.Helper()
	if !strings.Contains(text, "linkstore etcd ") {
		return text
	}
	cert, key := certificate(t)
	place := node.Place{Etcd: node.Etcd{Endpoints: startEtcd(t, cert, key), CA: cert, Cert: cert, Key: key}}
	s, err := place.Open(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`linkstore etcd [^{\n]*`).ReplaceAllString(text, "linkstore etcd "+place.Etcd.Endpoints+" ")
	return regexp.MustCompile(`(?m)^(\s*tls) \S+ \S+ \S+$`).ReplaceAllString(text, "$1 "+cert+" "+key+" "+cert)
}

// startEtcd starts a cluster of one member and returns its URL.
func startEtcd(t *testing.T, cert, key string) string {
	t.Helper()
	conf := etcdtest.Config(t, "docs", t.TempDir())
	conf.ListenClientUrls[0].Scheme = "https"
	conf.AdvertiseClientUrls = conf.ListenClientUrls
	conf.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: cert, ClientCertAuth: true}
	return etcdtest.Start(t, conf)
}

// certificate makes files of a certificate of 127.0.0.1, for either side, which is its own authority.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}
