package coremain

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/postern-link/postern/node/confine"
)

// needLandlock skips where the kernel has none.
func needLandlock(t *testing.T) {
	t.Helper()
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 3 {
		t.Skipf("Landlock of this kernel: version %d, %v", abi, err)
	}
}

// TestSandbox: a node reads and writes what it needs and nothing else; a reload that names a file out of reach is
// refused, says why, and leaves the old Corefile in force; reload, kill and restart work inside.
func TestSandbox(t *testing.T) {
	needLandlock(t)
	port, root := freePort(t), t.TempDir()
	in := func(name string) string { return filepath.Join(root, name) }
	for _, dir := range []string{"etc", "state", "other"} {
		if err := os.Mkdir(in(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	near, far := in("etc/hosts"), in("other/hosts")
	for _, path := range []string{near, far} {
		if err := os.WriteFile(path, []byte("192.0.2.9 y.example\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := func(addr, hosts string) string {
		return strings.NewReplacer(" privatelink\n", " linkstore bolt "+in("state/state.db")+"\n privatelink\n",
			" hosts {\n", " hosts "+hosts+" {\n", " reload 2s 0s\n", "").Replace(corefileText(port, addr))
	}
	start := func(text string) *server {
		if err := os.WriteFile(in("etc/Corefile"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return startIn(t, in("etc"), port)
	}

	s := start(text("192.0.2.1", near))
	s.answers("192.0.2.1")
	m := regexp.MustCompile(`sandbox: Landlock ABI \d+; writes below (.*), reads below ([^;\n]*)`).FindStringSubmatch(s.all())
	if m == nil || m[1] != in("state") || !slices.Contains(strings.Fields(m[2]), in("etc")) || slices.Contains(strings.Fields(m[2]), in("other")) {
		t.Fatalf("the line of the sandbox is %q:\n%s", m, s.all())
	}
	status := s.status()
	for _, want := range []string{"NoNewPrivs:\t1\n", "Umask:\t0077\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("status has no %q:\n%s", want, status)
		}
	}

	s.write(text("192.0.2.2", far))
	s.signal(syscall.SIGUSR1)
	s.await(`Corefile:7 - hosts: ` + far + ` is out of reach of the sandbox`)
	s.answers("192.0.2.1")
	if err := os.Symlink("../other/hosts", in("etc/link")); err != nil {
		t.Fatal(err)
	}
	s.write(text("192.0.2.2", in("etc/link")))
	s.signal(syscall.SIGUSR1)
	s.await(in("etc/link") + ` is out of reach of the sandbox`)
	s.write(strings.Replace(text("192.0.2.2", near), " errors\n", " errors\n import "+in("other")+"/h*\n", 1))
	s.signal(syscall.SIGUSR1)
	s.await("Corefile:7 - import: " + in("other") + " is out of reach of the sandbox")
	s.answers("192.0.2.1")

	s.write(text("192.0.2.2", near))
	s.signal(syscall.SIGUSR1)
	s.await("Reloading complete")
	s.answers("192.0.2.2")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.cmd.Wait() // killed

	// What was out of reach isn't when it is named at the start.
	s = start(text("192.0.2.3", far))
	s.answers("192.0.2.3")
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
}

// TestSandboxWrites: a running node can't write where nothing of its state is: a log of TLS keys that a reload asks for
// isn't made.
func TestSandboxWrites(t *testing.T) {
	needLandlock(t)
	port, root := freePort(t), t.TempDir()
	dir, out := filepath.Join(root, "node"), filepath.Join(root, "out")
	for _, d := range []string{dir, out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	certificate(t, dir)
	text := func(more string) string {
		return strings.Replace(corefileText(port, "192.0.2.1"), " errors\n", " errors\n tls cert.pem key.pem {\n"+more+" }\n", 1)
	}
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text("")), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startIn(t, dir, port)
	s.write(text("  keylog " + filepath.Join(out, "keys") + "\n"))
	s.signal(syscall.SIGUSR1)
	s.await("permission denied; the sandbox may be the cause")
	s.answers("192.0.2.1")
	if there(filepath.Join(out, "keys")) {
		t.Error("the node wrote outside of its state")
	}
}

// TestSandboxCause: where the kernel refuses, the line says that the sandbox may be why.
func TestSandboxCause(t *testing.T) {
	l := &loader{}
	err := &problem{"Corefile", 3, "tls", "open /x: permission denied"}
	if got := l.because(err); got != error(err) {
		t.Errorf("without a sandbox: %v", got)
	}
	l.sandbox = confine.Sandbox{ABI: 3}
	if got := l.because(err).Error(); !strings.HasPrefix(got, err.Error()+"; the sandbox may be the cause") {
		t.Errorf("%s", got)
	}
	other := &problem{"Corefile", 3, "tls", "open /x: no such file or directory"}
	if got := l.because(other); got != error(other) {
		t.Errorf("another error: %v", got)
	}
}

// TestSandboxFlag: on refuses to start with more privileges than are needed, off leaves the process as it is, other words
// are wrong use.
func TestSandboxFlag(t *testing.T) {
	port := freePort(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(corefileText(port, "192.0.2.1")), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := result(t, dir, "-sandbox", "perhaps"); code != 2 || !strings.Contains(stderr, "auto, on or off") {
		t.Errorf("another word: code %d, %s", code, stderr)
	}
	if os.Geteuid() == 0 {
		if code, _, stderr := result(t, dir, "-sandbox", "on"); code != 1 || !strings.Contains(stderr, "-sandbox on: running as root") {
			t.Errorf("on, as root: code %d, %s", code, stderr)
		}
	}
	s := startIn(t, dir, port, "-sandbox", "off")
	s.answers("192.0.2.1")
	if status := s.status(); !strings.Contains(s.all(), "sandbox: off") || strings.Contains(status, "NoNewPrivs:\t1") {
		t.Errorf("off:\n%s\n%s", s.all(), status)
	}
}

// TestReach: what a Corefile names is in reach with the directory where its links lead, and a zone isn't taken for a
// directory.
func TestReach(t *testing.T) {
	root := t.TempDir()
	t.Setenv("STATE_DIRECTORY", filepath.Join(root, "state"))
	t.Chdir(root)
	for _, dir := range []string{"state", "live", "archive", "run", "programs", "ids", "example.org"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"archive/cert1.pem", "zone", "programs/gate", "ids/identities.json"} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(root, name) }
	if err := os.Symlink("../archive/cert1.pem", "live/cert.pem"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text                   string
		read, execute, write, create []string
	}{
		{name: "nothing named", text: "forward . 8.8.8.8\n any example.org\n", write: []string{"state"}},
		{name: "certificate behind a link", text: "linkstore etcd https://127.0.0.1:1 {\n  tls " + in("live/cert.pem") + " " + in("live/cert.pem") + " " + in("live/cert.pem") + "\n }\n", read: []string{"archive", "live"}},
		{name: "relative file", text: "linkstore bolt state/x.db\n file zone\n", read: []string{"."}, write: []string{"state"}},
		{name: "import of what isn't there yet", text: "import " + in("live") + "/*.conf\n", read: []string{"live"}, write: []string{"state"}},
		{name: "program", text: "linkpolicy x {\n  program " + in("programs/gate") + "\n }\n", execute: []string{"programs"}, write: []string{os.TempDir()}},
		{name: "state elsewhere", text: "linkstore bolt " + in("run/x.db") + "\n", write: []string{"run"}},
		{name: "socket on etcd", text: "linkstore etcd https://127.0.0.1:1 {\n  socket " + in("run/s") + "\n }\n", write: []string{"run"}},
		{name: "key of tokens to be made", text: "linkapi 127.0.0.1:1 {\n  identities ids/identities.json\n }\n", read: []string{"ids"}, write: []string{"state"}, create: []string{"ids"}},
		{name: "certificate of the API without a state file", text: "linkstore etcd https://127.0.0.1:1\n linkapi 127.0.0.1:1\n", write: []string{"state"}},
		{name: "certificates of its own", text: "tls acme {\n  domain x.example\n }\n", read: nil, write: []string{".coredns/acme", "state"}},
		{name: "log of keys", text: "tls a b {\n  keylog run/keys\n }\n", write: []string{"state"}, create: []string{"run"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			known := slices.Concat(directives, []string{"linkpolicy"})
			file, err := parseCorefile("stdin", []byte(".:53 {\n bind 127.0.0.1\n privatelink\n "+c.text+"}\n"), known)
			if err != nil {
				t.Fatal(err)
			}
			got, err := file.reach()
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range []struct {
				name      string
				got, want []string
			}{{"read", got.Read, c.read}, {"execute", got.Execute, c.execute}, {"write", got.Write, c.write}, {"create", got.Create, c.create}} {
				var mine, want []string
				for _, p := range list.got {
					if p != self && (confine.Below(p, root) || p == os.TempDir()) {
						mine = append(mine, p)
					}
				}
				for _, w := range list.want {
					if !filepath.IsAbs(w) {
						w = in(w)
					}
					want = append(want, w)
				}
				if slices.Sort(want); fmt.Sprint(mine) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", list.name, mine, want)
				}
			}
		})
	}
}

// certificate makes cert.pem and key.pem in a directory.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"postern.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
