package export

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCheckURL(t *testing.T) {
	for _, tt := range []struct {
		text     string
		insecure bool
		want     string // of otlp; "": an error
	}{
		{"https://siem.example", false, "https://siem.example/v1/logs"},
		{"https://siem.example/", false, "https://siem.example/v1/logs"},
		{"https://siem.example:8443/in?key=s3cret", false, "https://siem.example:8443/in?key=s3cret"},
		{"http://127.0.0.1:4318", false, "http://127.0.0.1:4318/v1/logs"},
		{"http://[::1]:4318/x", false, "http://[::1]:4318/x"},
		{"http://siem.example", false, ""},
		{"http://localhost:4318", false, ""}, // it is what the resolver says
		{"http://10.0.0.1", false, ""},
		{"http://10.0.0.1/s3cret", true, "http://10.0.0.1/s3cret"},
		{"https://s3cret:s3cret@siem.example", false, ""},
		{"https://siem.example/#s3cret", false, ""},
		{"https:s3cret", false, ""},
		{"https:///s3cret", false, ""},
		{"ftp://siem.example/s3cret", true, ""},
		{"siem.example:4318", false, ""},
		{"https://siem.example/%zz", false, ""},
		{"", false, ""},
	} {
		got, err := CheckURL(OTLP, tt.text, tt.insecure)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %s, %v", tt.text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error shows it: %v", tt.text, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0": 0, "-3": 0, "1.5": 0, "soon": 0, "99999999999999": 0, "86400": mostAsked,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:05 GMT": 0, "Sat, 03 Jan 2026 03:00:05 GMT": mostAsked,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	b := newBackoff(usual)
	for range 100 {
		if d := b.next(0); d < usual.first/2 || d > usual.most {
			t.Fatalf("a pause of %v", d)
		}
		if d := b.next(5 * time.Minute); d < 5*time.Minute || d > 5*time.Minute+usual.first {
			t.Fatalf("a pause of %v instead of 5m", d)
		}
	}
}

// A receiver that asks to be left alone is.
func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	var mu sync.Mutex
	var at []time.Time
	s.answers(func(rw http.ResponseWriter, _ *http.Request, _ []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if at = append(at, time.Now()); len(at) > 1 {
			return true
		}
		rw.Header().Set("Retry-After", "1")
		rw.WriteHeader(http.StatusTooManyRequests)
		return false
	})
	c := w.config(s.up(), Webhook)
	c.Audit = false
	w.start(c).Add(records(0, 1), 0)
	eventually(t, "it has come", func() bool { flows, _ := s.has(); return flows == 1 })
	if pause := at[1].Sub(at[0]); pause < time.Second {
		t.Errorf("tried again after %v", pause)
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Bodies are signed as they are sent, and tokens read again when they are renewed.
func TestSignatureAndToken(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	const key = "0123456789abcdef0123456789abcdef"
	token := make(chan string, 100)
	s.answers(func(_ http.ResponseWriter, r *http.Request, body []byte) bool {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(r.Header.Get(headerTime) + "."))
		mac.Write(body)
		if r.Header.Get(headerSignature) != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
			t.Errorf("signature %s", r.Header.Get(headerSignature))
		}
		token <- r.Header.Get("Authorization")
		return true
	})
	c := w.config(s.up(), Webhook)
	c.Audit = false
	c.Secret, c.Token = write(t, filepath.Join(w.dir, "secret"), key+"\n"), write(t, filepath.Join(w.dir, "token"), "first\n")
	r := w.start(c)
	for _, want := range []string{"first", "second"} {
		write(t, c.Token, want)
		r.Add(records(0, 1), 0)
		if got := <-token; got != "Bearer "+want {
			t.Errorf("token %s", got)
		}
	}
	for name, text := range map[string]string{"empty": "", "short": "short", "two lines": key + "\nmore"} {
		c.Secret = write(t, filepath.Join(w.dir, "bad"), text)
		if _, err := New(c, r.options); err == nil || !strings.Contains(err.Error(), c.Secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// pemOf writes the certificate of a test server.
func pemOf(t *testing.T, path string, server *httptest.Server) string {
	return write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
}

// The receiver must show a certificate of the authorities of the file, which may be renewed while it is spoken to; it may want one too.
func TestTLS(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	server := httptest.NewUnstartedServer(s)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	c := w.config(s, OTLP)
	c.URL, c.Audit = server.URL+"/v1/logs", false
	c.Cert = pemOf(t, filepath.Join(w.dir, "cert.pem"), server)
	c.Key = write(t, filepath.Join(w.dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	c.CA = write(t, filepath.Join(w.dir, "ca.pem"), otherAuthority)
	r := w.start(c)
	r.Add(records(0, 1), 0)
	eventually(t, "it is refused", func() bool { return strings.Contains(w.log.String(), "signed by unknown authority") })
	write(t, c.CA, "no certificate") // those before stay in force
	eventually(t, "it is tried again", func() bool { return w.metric("failures_total", "siem", "flows") > 5 })
	pemOf(t, c.CA, server)
	eventually(t, "it has come", func() bool { flows, _ := s.has(); return flows == 1 })

	for name, bad := range map[string]func(*Config){
		"no such authorities": func(c *Config) { c.CA += "x" },
		"no such certificate": func(c *Config) { c.Cert += "x" },
		"no such token":       func(c *Config) { c.Token = c.Cert + "x" },
		"no directory":        func(c *Config) { c.Audit, c.Position = true, "/nowhere/at/all" },
	} {
		c := c
		bad(&c)
		if _, err := New(c, r.options); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// otherAuthority is one that nobody has a certificate of.
const otherAuthority = `-----BEGIN CERTIFICATE-----
MIIBODCB66ADAgECAhQIFamjYMlCD66z/X20cU8ggUfezTAFBgMrZXAwETEPMA0G
A1UEAwwGbm9ib2R5MCAXDTI2MTEyMjIwMzcyMFoYDzIxMjYxMDI5MjAzNzIwWjAR
MQ8wDQYDVQQDDAZub2JvZHkwKjAFBgMrZXADIQBbxLEa4r7RComDXiRbuk37oYJV
fG3MOYPIEe+XVrIoOqNTMFEwHQYDVR0OBBYEFOhHN2DqF7UCOiukgafw3PhgP3MW
MB8GA1UdIwQYMBaAFOhHN2DqF7UCOiukgafw3PhgP3MWMA8GA1UdEwEB/wQFMAMB
Af8wBQYDK2VwA0EAUhXJrLDGwXiiCPnWgnbo2ySchejLFSu0VfSKSCOekPdSD78/
Xb1KxjqAw6GF/LJrqwQ3pXjIb+aweeNOCxJ2CQ==
-----END CERTIFICATE-----
`

// C16: neither the address, which may hold a key, nor the files are in the log, whatever the receiver does.
func TestSecretsAreNotTold(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t)
	const secret = "s3cr3t-s3cr3t-s3cr3t"
	c := w.config(s, Webhook)
	c.URL += "/" + secret + "?key=" + secret
	c.Secret, c.Token = write(t, filepath.Join(w.dir, "secret"), secret), write(t, filepath.Join(w.dir, "token"), secret)
	w.commit(2)
	r := w.start(c)
	r.Add(records(0, 1), 0)
	failed := func(n float64) func() bool {
		return func() bool { return w.metric("failures_total", "siem", "audit") >= n }
	}
	eventually(t, "it is away", failed(2))
	s.answers(func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
		rw.Header().Set("Location", "http://"+secret)
		http.Error(rw, r.Header.Get("Authorization"), []int{302, 400, 500}[time.Now().UnixNano()/1e6%3])
		return false
	})
	s.up()
	eventually(t, "it refuses", failed(30))
	write(t, c.Token, secret+"\n"+secret)
	eventually(t, "the token isn't one", func() bool { return strings.Contains(w.log.String(), c.Token) })
	if strings.Contains(w.log.String(), secret) {
		t.Error(w.log)
	}
}
