package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern-link/postern/cli/frontend"
	"github.com/postern-link/postern/cli/frontend/peers"
)

// frontEnd starts a server of two sites that asks a handler. Who says no name gets an alert, or the nameless certificate.
func frontEnd(t *testing.T, nameless *tls.Certificate, handle http.HandlerFunc) (addr, ca string) {
	t.Helper()
	certs, _ := peers.Certificates(t, "a.example", "b.example")
	cfg := &tls.Config{}
	by := map[string]*tls.Certificate{"": nameless}
	for _, name := range []string{"a.example", "b.example"} {
		c, err := tls.LoadX509KeyPair(filepath.Join(certs, name+".crt"), filepath.Join(certs, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		by[name] = &c
	}
	cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := by[strings.ToLower(h.ServerName)]; c != nil {
			return c, nil
		}
		return nil, net.ErrClosed
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handle, TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(ln, "", "")
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String(), filepath.Join(certs, "ca.pem")
}

// serves answers with a site for each host, and with a status where the host isn't the server name; zero: as ever.
func serves(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if status != 0 && r.Host != strings.ToLower(r.TLS.ServerName) {
			w.WriteHeader(status)
			return
		}
		io.WriteString(w, "the data of "+r.Host+"\n")
	}
}

// commandLine runs the program without any API.
func commandLine(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Main(args, Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }})
	return code, out.String(), errs.String()
}

// TestCheckProvider: X24, with the exit codes of docs/cli.md.
func TestCheckProvider(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		code   int
		host   frontend.Verdict
	}{
		{"bound", 421, ExitDone, frontend.Pass},
		{"unclear", 404, ExitUnavailable, frontend.Unknown},
		{"open", 0, ExitFailed, frontend.Fail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, ca := frontEnd(t, nil, serves(tt.status))
			args := []string{"check-provider", addr, "--name", "A.example.", "--other", "b.example", "--ca", ca}
			code, out, errs := commandLine(args...)
			if code != tt.code || errs != "" || !strings.HasPrefix(out, "ITEM ") {
				t.Fatalf("code %d, want %d: %s%s", code, tt.code, out, errs)
			}
			for format, decode := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": func(b []byte, v any) error {
				var m map[string]any
				if err := yaml.Unmarshal(b, &m); err != nil {
					return err
				}
				text, err := json.Marshal(m)
				if err != nil {
					return err
				}
				return json.Unmarshal(text, v)
			}} {
				var r frontend.Report
				code, out, _ := commandLine(append(args, "-o", format)...)
				if err := decode([]byte(out), &r); err != nil || code != tt.code {
					t.Fatalf("%s: code %d, %v:\n%s", format, code, err, out)
				}
				if r.Name != "a.example" || r.Other != "b.example" || r.Address != addr || r.Items[1].Name != "host" || r.Items[1].Verdict != tt.host {
					t.Errorf("%s: %+v", format, r)
				}
				if (r.Items[1].Do == "") != (tt.host == frontend.Pass) {
					t.Errorf("%s: to do: %q", format, r.Items[1].Do)
				}
			}
		})
	}
}

// TestCheckProviderEscapes: a certificate says what its maker likes, and a terminal sees none of it.
func TestCheckProviderEscapes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "\x1b[2Jpass\u202e" + strings.Repeat("x", 1000)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	addr, ca := frontEnd(t, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, serves(0))
	for _, format := range []string{"table", "json", "yaml"} {
		_, out, _ := commandLine("check-provider", addr, "--name", "a.example", "--other", "b.example", "--ca", ca, "-o", format)
		if strings.ContainsAny(out, "\x1b\u202e") || !strings.Contains(out, "[2Jpass") || strings.Contains(out, strings.Repeat("x", 300)) {
			t.Errorf("%s: %q", format, out)
		}
	}
}

func TestCheckProviderFlags(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"", ExitUsage, "accepts 1 arg"},
		{"127.0.0.1:1", ExitUsage, "required"},
		{"127.0.0.1 --name a.example --other b.example", ExitUsage, "HOST:PORT"},
		{"127.0.0.1:1 --name a.example --other A.example.", ExitUsage, "two customers"},
		{"127.0.0.1:1 --name a_b --other b.example", ExitUsage, "name"},
		{"127.0.0.1:1 --name a.example --other b.example --path x", ExitUsage, "path"},
		{"127.0.0.1:1 --name a.example --other b.example --proxy-protocol v3", ExitUsage, "v3"},
		{"127.0.0.1:1 --name a.example --other b.example --link-id -1", ExitUsage, "link-id"},
		{"127.0.0.1:1 --name a.example --other b.example --timeout 1h", ExitUsage, "timeout"},
		{"127.0.0.1:1 --name a.example --other b.example --ca /nonexistent", ExitError, "certificates"},
		{"127.0.0.1:1 --name a.example --other b.example", ExitUnavailable, "refused"},
	} {
		code, out, errs := commandLine(append([]string{"check-provider"}, strings.Fields(tt.args)...)...)
		if code != tt.code || out != "" || !strings.Contains(errs, tt.want) {
			t.Errorf("%q: code %d, %q %q, want %d and %q", tt.args, code, out, errs, tt.code, tt.want)
		}
	}
}
