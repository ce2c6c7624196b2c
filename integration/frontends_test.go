package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	frontpeers "github.com/postern-link/postern/cli/frontend/peers"
)

// frontEnd is a real server behind an endpoint, or a router that others would put in our place.
type frontEnd struct {
	title    string
	names    names
	addr     string // on the provider
	recorder *recorder
	endpoint string // where a node lets clients get to the recorder; none for routers
	speech   speech
}

// speech is what a front end speaks inside TLS, and in front of it.
type speech interface {
	// before takes a connection to where the hello is due.
	before(conn net.Conn) error
	// after asks the simplest question inside TLS. It returns the server name that the application was told, where it
	// says so, and what is wrong with the answer.
	after(rw io.ReadWriter) (told, wrong string)
}

// web is HTTP.
type web struct{}

func (web) before(net.Conn) error { return nil }

func (web) after(rw io.ReadWriter) (told, wrong string) {
	if _, err := io.WriteString(rw, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil {
		return "", ended(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(rw), nil)
	if err != nil {
		return "", ended(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", ended(err)
	}
	told, _ = strings.CutPrefix(string(body), "sni=")
	return strings.TrimSpace(told), ""
}

// pg is PostgreSQL's protocol (version 3, "Message Flow").
type pg struct{}

const (
	pgAskTLS = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	pgStart  = "\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"
)

func (pg) before(conn net.Conn) error {
	if _, err := io.WriteString(conn, pgAskTLS); err != nil {
		return err
	}
	var yes [1]byte
	if _, err := io.ReadFull(conn, yes[:]); err != nil {
		return err
	} else if yes[0] != 'S' {
		return fmt.Errorf("answered %q", yes)
	}
	return nil
}

func (pg) after(rw io.ReadWriter) (told, wrong string) {
	if _, err := io.WriteString(rw, pgStart); err != nil {
		return "", ended(err)
	}
	var kind [1]byte
	if _, err := io.ReadFull(rw, kind[:]); err != nil {
		return "", ended(err)
	} else if kind[0] != 'R' { // a request to prove who we are, or that it isn't needed
		return "", fmt.Sprintf("answered %q", kind)
	}
	return "", ""
}

// provide starts the front ends, each with a recorder in front of it, then the routers.
func provide(g *ground) []*frontEnd {
	var all []*frontEnd
	var hosts []string
	for i, f := range []struct{ title, name string }{
		{"nginx", "nginx"}, {"HAProxy", "haproxy"}, {"Go crypto/tls", "go"}, {"openssl s_server", "openssl"}, {"PostgreSQL", "postgres"},
	} {
		n := names{"a." + f.name + ".example", "b." + f.name + ".example"}
		hosts = append(hosts, n.allowed, n.other)
		all = append(all, &frontEnd{title: f.title, names: n, addr: fmt.Sprintf("10.20.0.4:%d", 9001+i), speech: web{}})
	}
	all[4].speech = pg{}
	certs, _ := frontpeers.Certificates(g.t, hosts...)
	g.dir = certs
	g.file("crt-list", "DIR/b.haproxy.example.pem\nDIR/a.haproxy.example.pem\n")

	for _, file := range []string{"nginx.conf", "stream.conf", "haproxy.cfg"} {
		b, err := os.ReadFile("testdata/frontends/" + file)
		if err != nil {
			g.t.Fatal(err)
		}
		g.file(file, string(b))
	}
	g.daemon("nginx", "provider", all[0].addr, "nginx", "-p", g.dir, "-c", g.dir+"/nginx.conf")
	g.daemon("haproxy", "provider", all[1].addr, "haproxy", "-db", "-f", g.dir+"/haproxy.cfg")
	serveGo(g, all[2])
	n := all[3].names
	g.daemon("openssl", "provider", all[3].addr, "openssl", "s_server", "-accept", all[3].addr, "-www", "-cert", n.other+".crt", "-key", n.other+".key",
		"-servername", n.allowed, "-cert2", n.allowed+".crt", "-key2", n.allowed+".key")
	servePostgres(g, all[4])
	for i, f := range all {
		at := fmt.Sprintf("10.20.0.4:%d", 8001+i)
		f.recorder, f.endpoint = g.record("provider", at, f.addr), fmt.Sprintf("10.200.0.%d:%d", 5+i, 8001+i)
	}
	g.daemon("stream", "provider", "10.20.0.4:9011", "nginx", "-p", g.dir, "-c", g.dir+"/stream.conf")
	// Again with the names the other way round: it changes from the default to the other name, and never back.
	g.daemon("openssl again", "provider", "10.20.0.4:9006", "openssl", "s_server", "-accept", "10.20.0.4:9006", "-www", "-cert", n.allowed+".crt", "-key", n.allowed+".key",
		"-servername", n.other, "-cert2", n.other+".crt", "-key2", n.other+".key")
	return append(all, &frontEnd{title: "the same, allowed default", names: n, addr: "10.20.0.4:9006", speech: web{}},
		&frontEnd{title: "nginx stream", names: all[0].names, addr: "10.20.0.4:9011", speech: web{}},
		&frontEnd{title: "HAProxy tcp", names: all[0].names, addr: "10.20.0.4:9012", speech: web{}})
}

// serveGo serves two names with net/http and crypto/tls.
func serveGo(g *ground, f *frontEnd) {
	var cfg tls.Config
	for _, n := range []string{f.names.other, f.names.allowed} { // the first is the default
		pair, err := tls.LoadX509KeyPair(g.dir+"/"+n+".crt", g.dir+"/"+n+".key")
		if err != nil {
			g.t.Fatal(err)
		}
		cfg.Certificates = append(cfg.Certificates, pair)
	}
	ln := g.listen("provider", f.addr)
	s := &http.Server{TLSConfig: &cfg, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "sni="+r.TLS.ServerName)
	})}
	go s.ServeTLS(ln, "", "")
	g.t.Cleanup(func() { s.Close() })
}

// servePostgres serves one name, as PostgreSQL does, that of the other.
func servePostgres(g *ground, f *frontEnd) {
	dir, err := os.MkdirTemp("", "postern-postgres-")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { os.RemoveAll(dir) })
	asUser := func(argv ...string) []string {
		return append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env", "-C", dir}, argv...)
	}
	run := func(argv ...string) {
		if out, err := g.output("provider", argv...); err != nil {
			g.t.Fatalf("%s: %v: %s", argv, err, out)
		}
	}
	run("chown", "postgres", dir)
	run(asUser("initdb", "-D", dir+"/data", "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C")...)
	run("install", "-o", "postgres", "-m", "600", f.names.other+".key", dir+"/data/server.key")
	run("install", "-o", "postgres", "-m", "600", f.names.other+".crt", dir+"/data/server.crt")
	hba := "host all all 0.0.0.0/0 trust\n"
	if err := os.WriteFile(dir+"/data/pg_hba.conf", []byte(hba), 0o644); err != nil {
		g.t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(f.addr)
	g.daemon("postgres", "provider", f.addr, asUser("postgres", "-D", dir+"/data", "-k", dir, "-h", host, "-p", port, "-F", "-c", "ssl=on",
		"-c", "shared_buffers=16MB", "-c", "max_connections=20")...)
}

// corefile has a service and an endpoint for each front end with a recorder.
func corefile(all []*frontEnd) string {
	var b strings.Builder
	b.WriteString(".:53 {\n    bind 10.1.0.1\n    linknetwork corp 10.1.0.0/16 {\n        endpoints 10.200.0.0/24\n    }\n")
	for i, f := range all {
		if f.recorder == nil {
			continue
		}
		pin := "tls"
		if f.speech == (pg{}) {
			pin = "postgres"
		}
		host, _, _ := net.SplitHostPort(f.endpoint)
		fmt.Fprintf(&b, "    linkservice s%d {\n        names   %s\n        pin     %s\n        target  %s\n        approve corp\n    }\n", i, f.names.allowed, pin, f.recorder.ln.Addr())
		fmt.Fprintf(&b, "    linkendpoint e%d {\n        service s%d\n        network corp\n        address %s\n    }\n", i, i, host)
	}
	b.WriteString("    privatelink\n    linkproxy\n    prometheus 127.0.0.1:9153\n    errors\n}\n")
	return b.String()
}

// TestFrontEnds makes each attempt at each front end twice: straight, to see what it does, and through a node, where
// nothing but what is allowed arrives, whatever the front end would do. Attempts at routers, which others would have in
// our place, are made once.
func TestFrontEnds(t *testing.T) {
	g := newGround(t)
	all := provide(g)
	g.postern(corefile(all), "127.0.0.1:9153")
	cells := make([][]string, len(attempts))
	for i := range cells {
		cells[i] = make([]string, len(all))
	}
	before := refusals(g)
	want := map[string]int{}
	for _, f := range all {
		for i := range attempts {
			if a := &attempts[i]; f.recorder != nil && a.reason != "" {
				want[a.reason]++
			}
		}
	}
	t.Run("attempts", func(t *testing.T) {
		for j, f := range all {
			t.Run(f.title, func(t *testing.T) {
				t.Parallel()
				for i := range attempts {
					a := &attempts[i]
					conn, err := g.dial("provider", f.addr)
					if err != nil {
						t.Fatal(err)
					}
					straight := a.try(conn, f.names, f.speech)
					cells[i][j] = f.cell(straight)
					conn.Close()
					if f.recorder != nil {
						through(t, g, f, a, cells[i][j])
					}
				}
			})
		}
	})
	t.Run("early data", func(t *testing.T) { earlyDataAccepted(t, g, all[0]) })
	t.Log(versions(), "\n"+table(all, cells))

	// What is kept from the front ends would do something there: each serves the other name to who asks for it.
	for j, f := range all {
		if i := slices.IndexFunc(attempts, func(a attempt) bool { return a.name == "X02 the other name" }); f.recorder != nil && cells[i][j] != "OTHER" && cells[i][j] != "served" {
			t.Errorf("%s asked for the other name: %s", f.title, cells[i][j])
		}
	}
	// Each refusal was counted for its reason, and none for another.
	got := map[string]int{}
	for end := time.Now().Add(eventuallyTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		got = refusals(g)
		for reason, n := range before {
			got[reason] -= n
		}
		maps.DeleteFunc(got, func(reason string, n int) bool { return n == 0 })
		if maps.Equal(got, want) {
			break
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("refusals by reason: %v, want %v", got, want)
	}
}

// through makes an attempt from a consumer's network through a node, and judges what came of it and what arrived. What
// is allowed does what it does without a node.
func through(t *testing.T, g *ground, f *frontEnd, a *attempt, straight string) {
	t.Helper()
	mark := f.recorder.mark()
	conn, err := g.dial("corp-a", f.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	got := a.try(conn, f.names, f.speech)
	conn.Close()
	arrived := f.recorder.since(t, mark)
	var begin []byte // what the client says in front of its hello, and the node itself
	if f.speech == (pg{}) {
		begin = []byte(pgAskTLS)
	}
	begin = append(begin, got.first...)
	switch {
	case a.reason == "":
		if cell := f.cell(got); cell != straight || a.behind == nil && cell != f.good() {
			t.Errorf("%s: %s through a node, %s without", a.name, cell, straight)
		}
		if len(arrived) != 1 || !bytes.HasPrefix(arrived[0], append(begin, got.behind...)) {
			t.Errorf("%s: %d connections arrived, want one that begins with the hello as it was sent: %.600x", a.name, len(arrived), arrived)
		}
	case got.served != "" || got.ended != "reset":
		t.Errorf("%s: served %q, ended %q; want a reset", a.name, got.served, got.ended)
	case a.retried:
		if len(arrived) != 1 || !bytes.Equal(arrived[0], begin) {
			t.Errorf("%s: arrived %x, want the first hello and nothing else, %x", a.name, arrived, begin)
		}
	case len(arrived) != 0:
		t.Errorf("%s: arrived %x, want nothing", a.name, arrived)
	}
}

// cell is what a front end did, in a word.
func (f *frontEnd) cell(t tried) string {
	switch {
	case t.served == "":
		return t.ended
	case f.speech == (pg{}):
		return f.good()
	case t.served == f.names.other:
		return "OTHER"
	case t.told == f.names.other:
		return "allowed, told OTHER"
	}
	return f.good()
}

// good is what becomes of an allowed name.
func (f *frontEnd) good() string {
	if f.speech == (pg{}) {
		return "served" // whatever the name: there is one certificate
	}
	return "allowed"
}

func table(all []*frontEnd, cells [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	io.WriteString(w, "| ")
	for _, f := range all {
		fmt.Fprintf(w, "\t| %s", f.title)
	}
	fmt.Fprintln(w, "\t| through a node\t|")
	for i, row := range cells {
		through := "nothing arrives: " + attempts[i].reason
		if attempts[i].reason == "" {
			through = "allowed"
		} else if attempts[i].retried {
			through = "nothing of the second: " + attempts[i].reason
		}
		fmt.Fprintf(w, "| %s\t| %s\t| %s\t|\n", attempts[i].name, strings.Join(row, "\t| "), through)
	}
	w.Flush()
	return b.String()
}

// versions are those of the front ends.
func versions() string {
	var all []string
	for _, argv := range [][]string{{"nginx", "-v"}, {"haproxy", "-v"}, {"openssl", "version"}, {"postgres", "--version"}, {"go", "version"}} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		line, _, _ := strings.Cut(string(out), "\n")
		if err != nil {
			line = argv[0] + ": " + err.Error()
		}
		all = append(all, line)
	}
	return strings.Join(all, "; ")
}

var refusal = regexp.MustCompile(`(?m)^postern_proxy_(?:refused|flows)_total\{protocol="tcp",reason="(\w+)"\} (\d+)$`)

// refusals counts the flows of a node by why they ended, but for those that ended by themselves.
func refusals(g *ground) map[string]int {
	g.t.Helper()
	out, err := g.output("edge", "curl", "-sS", "--fail", "http://127.0.0.1:9153/metrics")
	if err != nil {
		g.t.Fatal(err, out)
	}
	all := map[string]int{}
	for _, m := range refusal.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			g.t.Fatal(err)
		}
		if !slices.Contains([]string{"client", "target", "done"}, m[1]) {
			all[m[1]] += n
		}
	}
	return all
}

// earlyDataAccepted is X14 with a client and a server that have a session: the early data is accepted, behind a hello
// that was let through.
func earlyDataAccepted(t *testing.T, g *ground, f *frontEnd) {
	request := g.file("request", "GET / HTTP/1.1\r\nHost: "+f.names.allowed+"\r\nConnection: close\r\n\r\n")
	client := func(more string) string {
		out, err := g.output("corp-a", "sh", "-c", "openssl s_client -connect "+f.endpoint+" -servername "+f.names.allowed+" -tls1_3 -ign_eof "+more)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	client("-sess_out session < " + request)
	mark := f.recorder.mark()
	out := client("-sess_in session -early_data " + request + " < /dev/null")
	if !strings.Contains(out, "Early data was accepted") || !strings.Contains(out, "sni="+f.names.allowed) {
		t.Errorf("the early data wasn't accepted or not answered:\n%s", out)
	}
	if arrived := f.recorder.since(t, mark); len(arrived) != 1 {
		t.Errorf("%d connections arrived", len(arrived))
	}
}
