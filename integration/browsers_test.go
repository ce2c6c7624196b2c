package integration

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	frontpeers "github.com/postern-link/postern/cli/frontend/peers"
	"github.com/postern-link/postern/policy/hello"
)

// browser is a real one, run without a window on a page of a server whose certificate it is made to trust.
type browser struct {
	name, program string
	agent         string // in what it calls itself
	// policy is what an administrator writes to a file so that it sends no ECH to who has no keys for it. Firefox's policy
	// DisableEncryptedClientHello doesn't do that.
	policyDir, policyFile, policy string
	// argv is its command line, for a profile directory of its own.
	argv func(g *ground, profile, url string, leaf *x509.Certificate) ([]string, error)
}

var browsers = []browser{
	{"Chromium", "chromium", "Chrome/", "/etc/chromium", "policies/managed/ech.json", `{"EncryptedClientHelloEnabled": false}`, chromium},
	{"Firefox", "firefox-esr", "Firefox/", "/etc/firefox-esr", "ech.js", `pref("security.tls.ech.grease_probability", 0);`, firefox},
}

func chromium(_ *ground, profile, url string, leaf *x509.Certificate) ([]string, error) {
	key := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return []string{"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=" + profile,
		"--ignore-certificate-errors-spki-list=" + base64.StdEncoding.EncodeToString(key[:]), "--dump-dom", url}, nil
}

func firefox(g *ground, profile, url string, _ *x509.Certificate) ([]string, error) {
	for _, argv := range [][]string{
		{"certutil", "-N", "-d", "sql:" + profile, "--empty-password"},
		{"certutil", "-A", "-d", "sql:" + profile, "-n", "test CA", "-t", "C,,", "-i", g.dir + "/ca.pem"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", argv, err, out)
		}
	}
	return []string{"firefox-esr", "--headless", "--no-remote", "--profile", profile, "--screenshot", profile + "/page.png", url}, nil
}

// site is an HTTPS server that notes who asked.
type site struct {
	mu   sync.Mutex
	seen []string // Host and User-Agent of each request for the page
}

func (g *ground) site(addr string, names ...string) *site {
	g.t.Helper()
	g.dir, _ = frontpeers.Certificates(g.t, names...)
	s := &site{}
	var cfg tls.Config
	for _, n := range names {
		pair, err := tls.LoadX509KeyPair(g.dir+"/"+n+".crt", g.dir+"/"+n+".key")
		if err != nil {
			g.t.Fatal(err)
		}
		cfg.Certificates = append(cfg.Certificates, pair)
	}
	ln := g.listen("provider", addr)
	server := &http.Server{TLSConfig: &cfg, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute, Handler: s}
	go server.ServeTLS(ln, "", "")
	g.t.Cleanup(func() { server.Close() })
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, r.Host+" "+r.UserAgent())
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, "<!doctype html><title>page</title><p>the page of "+r.Host+"</p>")
}

// asked reports whether a browser asked for the page of a host.
func (s *site) asked(host, agent string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		if strings.HasPrefix(r, host+" ") && strings.Contains(r, agent) {
			return true
		}
	}
	return false
}

// TestBrowsers: what a person with a browser meets at a pinned service (X12). Today's browsers send ECH that nobody has
// keys for (GREASE), to everybody, and don't try without it: they are refused by default, load the page where the
// service says "ech allow", and where they are told to send none. What they do by themselves changes with their versions,
// and is logged.
func TestBrowsers(t *testing.T) {
	for _, b := range browsers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(b.program); err != nil {
				t.Fatalf("%s is missing: `make deps` installs it: %v", b.program, err)
			}
			g := newGround(t)
			site := g.site("10.20.0.4:9443", "plain.browser.example", "ech.browser.example")
			plain, ech := g.record("provider", "10.20.0.4:443", "10.20.0.4:9443"), g.record("provider", "10.20.0.5:443", "10.20.0.4:9443")
			g.postern(browsersCorefile, "127.0.0.1:9153")
			const refused, allowed = "plain.browser.example", "ech.browser.example"
			g.browse(b, refused, "", func() bool { return refusals(g)["ech_denied"] > 1 || site.asked(refused, b.agent) })
			for _, got := range plain.since(t, 0) {
				if h, err := hello.Read(bytes.NewReader(got)); err != nil || h.ECH {
					t.Errorf("by default: a hello with ECH %t arrived: %v", h.ECH, err)
				}
			}
			t.Logf("by default: %d refused because of ECH, page loaded: %t", refusals(g)["ech_denied"], site.asked(refused, b.agent))
			g.browse(b, allowed, "", func() bool { return site.asked(allowed, b.agent) })
			if !site.asked(allowed, b.agent) {
				t.Error("ech allow: the page didn't load")
			}
			for _, got := range ech.since(t, 0) {
				if h, err := hello.Read(bytes.NewReader(got)); err != nil || h.Name != allowed || !h.ECH {
					t.Errorf("ech allow: a hello for %q with ECH %t: %v", h.Name, h.ECH, err)
				} else {
					t.Logf("a hello of %d bytes: %x", len(h.Bytes), h.Bytes)
				}
			}
			g.browse(b, refused, b.policy, func() bool { return site.asked(refused, b.agent) })
			if !site.asked(refused, b.agent) { // or it did at once, if this is a version that needs no policy
				t.Errorf("with %s: the page didn't load", b.policy)
			}
		})
	}
}

func (g *ground) leaf(name string) *x509.Certificate {
	pair, err := tls.LoadX509KeyPair(g.dir+"/"+name+".crt", g.dir+"/"+name+".key")
	if err != nil {
		g.t.Fatal(err)
	}
	return pair.Leaf
}

// browse runs a browser on a page until done says so, it ends by itself, or a minute has passed.
func (g *ground) browse(b browser, host, policy string, done func() bool) {
	g.t.Helper()
	dir, err := os.MkdirTemp("", "postern-browser-")
	if err != nil {
		g.t.Fatal(err)
	}
	defer os.RemoveAll(dir) // what a process of a browser still writes there is nobody's loss
	profile, policies := filepath.Join(dir, "profile"), filepath.Join(dir, "policies")
	if err := os.Mkdir(profile, 0o700); err != nil {
		g.t.Fatal(err)
	}
	argv, err := b.argv(g, profile, "https://"+host+"/", g.leaf(host))
	if err != nil {
		g.t.Fatal(err)
	}
	if policy != "" {
		file := filepath.Join(policies, b.policyFile)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(policy), 0o644)); err != nil {
			g.t.Fatal(err)
		}
		// ip-netns has given the process mounts of its own.
		argv = append([]string{"sh", "-c", "mount --bind " + policies + " " + b.policyDir + ` && exec "$@"`, "sh"}, argv...)
	}
	start := time.Now()
	p, err := launch(b.name, dir, append(slices.Clip(g.env), "HOME="+profile), g.net.hosts["corp-a"].command(argv[0], argv[1:]...))
	if err != nil {
		g.t.Fatal(err)
	}
	for time.Since(start) < time.Minute && p.running() && !done() {
		p.wait(100 * time.Millisecond)
	}
	g.t.Logf("%s on %s, policy %q: %v", b.name, host, policy, time.Since(start).Round(time.Millisecond))
	_ = p.end(5 * time.Second) // a browser may take its time; what counts is what it has done
}

const browsersCorefile = `.:53 {
    bind 10.1.0.1
    linknetwork corp 10.1.0.0/16 {
        endpoints 10.200.0.0/24
    }
    linkservice plain {
        names   plain.browser.example
        target  10.20.0.4:443
        approve corp
    }
    linkservice ech {
        names   ech.browser.example
        target  10.20.0.5:443
        approve corp
        ech     allow
    }
    linkendpoint plain-corp {
        service plain
        network corp
        address 10.200.0.5
    }
    linkendpoint ech-corp {
        service ech
        network corp
        address 10.200.0.6
    }
    privatelink
    linkproxy
    prometheus 127.0.0.1:9153
    errors
}
`
