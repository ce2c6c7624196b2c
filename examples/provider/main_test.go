package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// serveProvider starts the provider and returns its address.
func serveProvider(t *testing.T, trust string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer(selfSigned(t, "demo.example.net"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.ServeTLS(behind(ln, netip.MustParsePrefix(trust)), "", "")
	}()
	t.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String()
}

func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAnswer(t *testing.T) {
	// The bytes of the TLV are those of the Azure manual: link ID 0x210045c1, little-endian.
	azure := proxyproto.TLV{Type: 0xEE, Value: []byte{0x01, 0xC1, 0x45, 0x00, 0x21}}
	source := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 40000}
	for name, c := range map[string]struct {
		trust  string
		header bool
		tlvs   []proxyproto.TLV
		host   string
		status int // 0: the connection is closed without an answer
		body   string
	}{
		"link ID, source and name":        {"127.0.0.0/8", true, []proxyproto.TLV{azure}, "demo.example.net", 200, "link ID  210045c1\nsource   10.1.2.3:40000\nSNI      demo.example.net\n"},
		"Host that isn't the judged name": {"127.0.0.0/8", true, []proxyproto.TLV{azure}, "other.example.net", 421, "not the name"},
		"header without a link ID":        {"127.0.0.0/8", true, nil, "demo.example.net", 403, "no link ID"},
		"no header":                       {"127.0.0.0/8", false, nil, "demo.example.net", 0, ""},
		"header of a stranger":            {"10.0.0.0/8", true, []proxyproto.TLV{azure}, "demo.example.net", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveProvider(t, c.trust)
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
				DisableKeepAlives: true,
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: "demo.example.net"},
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					conn, err := new(net.Dialer).DialContext(ctx, network, addr)
					if err != nil || !c.header {
						return conn, err
					}
					h := proxyproto.HeaderProxyFromAddrs(2, source, conn.RemoteAddr())
					if err := h.SetTLVs(c.tlvs); err != nil {
						return nil, err
					}
					_, err = h.WriteTo(conn)
					return conn, err
				},
			}}
			resp, err := client.Get("https://" + c.host + "/")
			if c.status == 0 {
				if err == nil {
					t.Fatalf("answered %s, want no answer", resp.Status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || !strings.Contains(string(body), c.body) {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
		})
	}
}
