package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// probedTarget is a target of the test's own that notes when it was first asked and gave a good answer.
type probedTarget struct {
	ln   net.Listener
	good chan time.Time // one at most
}

func (p *probedTarget) isGood() {
	select {
	case p.good <- time.Now():
	default:
	}
}

// accept accepts connections until the listener is closed: each is asked for what makes it good, which is nothing more where there is no
// ask.
func (p *probedTarget) accept(ask func(c net.Conn) error) {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.talk(c, ask)
	}
}

func (p *probedTarget) talk(c net.Conn, ask func(c net.Conn) error) {
	if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != "10.20.0.1" { // of the test's own
		c.Close()
		return
	}
	if ask == nil {
		p.isGood()
		c.Close()
		return
	}
	go func() {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if ask(c) == nil {
			p.isGood()
		}
	}()
}

// target has something listen on the provider.
func (g *ground) target(addr string) *probedTarget {
	g.t.Helper()
	return &probedTarget{g.listen("provider", addr), make(chan time.Time, 1)}
}

// deaf is a target whose system drops what would connect to it, until it accepts.
func (g *ground) deaf(port int) *probedTarget {
	g.t.Helper()
	p := &probedTarget{good: make(chan time.Time, 1)}
	var file *os.File
	err := g.net.hosts["provider"].enter(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "deaf")
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{10, 20, 0, 4}}); err != nil {
			return err
		}
		return unix.Listen(fd, 0)
	})
	if err == nil {
		p.ln, err = net.FileListener(file)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	file.Close()
	g.t.Cleanup(func() { p.ln.Close() })
	for range 16 { // until there is no place left
		c, err := g.net.hosts["provider"].dial(fmt.Sprint("10.20.0.4:", port), 300*time.Millisecond)
		if err != nil {
			return p
		}
		g.t.Cleanup(func() { c.Close() })
	}
	g.t.Fatal("this kernel lets every connection in")
	return nil
}

// TestProbedIsSeen (D22, D23): the names of an approved endpoint are public while the target refuses, is silent, says 503, or can't speak
// TLS; from the first probe that has gone well it takes less than 1 s until the endpoint is answered to everyone. When all targets are
// down the answer stays, and is public only for a service that says so.
func TestProbedIsSeen(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.answers("upstream", "203.0.113.53:53", public)
	var objects strings.Builder
	var all []*watched
	service := func(label, lines string, targets ...string) *watched {
		one := &watched{label: label, address: fmt.Sprint("10.200.0.", 4+len(all))}
		all = append(all, one)
		fmt.Fprintf(&objects, " linkservice %s {\n  names %s.database.windows.net\n  port 1433\n  pin address\n  target %s\n  approve corp\n%s }\n",
			label, label, strings.Join(targets, " "), lines)
		fmt.Fprintf(&objects, " linkendpoint %s {\n  service %s\n  network corp\n  address %s\n }\n", label, label, one.address)
		return one
	}
	refused, silent := service("refused", "", "10.20.0.4:7001"), service("silent", "", "10.20.0.4:7002")
	sick, mute := service("sick", "  probe http /health 200\n", "10.20.0.4:7003"), service("mute", "  probe tls\n", "10.20.0.4:7004")
	stays := service("stays", "", "10.20.0.4:7005", "10.20.0.5:7005")
	falls := service("falls", "  fallback public\n", "10.20.0.4:7005", "10.20.0.5:7005")
	falls.fallsBack = true

	slow := g.deaf(7002)
	var healthy atomic.Bool
	web := g.target("10.20.0.4:7003")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !healthy.Load() || r.URL.Path != "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		web.isGood()
	})}
	go server.Serve(web.ln)
	t.Cleanup(func() { server.Close() })
	cert, err := tls.LoadX509KeyPair(pki.dir+"/cert.pem", pki.dir+"/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	var speaks atomic.Bool
	secret := g.target("10.20.0.4:7004")
	go secret.accept(func(c net.Conn) error {
		if !speaks.Load() {
			return net.ErrClosed
		}
		return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
	})

	corefile, servers := fastAndSlow(" linknetwork corp 10.1.0.0/16 {\n  endpoints 10.200.0.0/24\n }\n" + objects.String() +
		" linkproxy {\n  probe 500ms\n }\n prometheus 127.0.0.1:9153\n")
	g.postern(corefile, servers[0])
	w := g.watch("corp-a", all, servers...)
	never := time.Now().Add(-soon) // what is of that time is to be so at once
	for _, one := range all {
		one.isGone(never)
	}
	for _, one := range all {
		w.seen(one, false)
	}
	time.Sleep(time.Second) // probes come twice a second

	var one, other *probedTarget
	for _, step := range []struct {
		one   *watched
		opens func() *probedTarget
	}{
		{refused, func() *probedTarget { p := g.target("10.20.0.4:7001"); go p.accept(nil); return p }},
		{silent, func() *probedTarget { go slow.accept(nil); return slow }},
		{sick, func() *probedTarget { healthy.Store(true); return web }},
		{mute, func() *probedTarget { speaks.Store(true); return secret }},
	} {
		step.one.either()
		p := step.opens()
		select {
		case at := <-p.good:
			step.one.isThere(at)
		case <-time.After(eventuallyTimeout):
			t.Fatalf("%s: no probe", step.one.label)
		}
		w.seen(step.one, true)
	}

	// The two services have the same targets. One of them is enough.
	stays.either()
	falls.either()
	open := func(addr string) *probedTarget { p := g.target(addr); go p.accept(nil); return p }
	one, other = open("10.20.0.4:7005"), open("10.20.0.5:7005")
	w.seen(stays, true)
	w.seen(falls, true)
	stays.isThere(never)
	falls.isThere(never)
	isUp := func(addr string, want int) {
		t.Helper()
		for _, service := range []string{"stays", "falls"} {
			pattern := fmt.Sprintf(`postern_proxy_target_up\{service="%s",target="%s"\}`, service, addr)
			for end := time.Now().Add(eventuallyTimeout); g.metric(pattern) != want; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s isn't %d", pattern, want)
				}
			}
		}
	}
	isUp("10.20.0.4:7005", 1)
	isUp("10.20.0.5:7005", 1)
	one.ln.Close()
	isUp("10.20.0.4:7005", 0)
	falls.either()
	other.ln.Close()
	isUp("10.20.0.5:7005", 0)
	w.seen(falls, false)
	falls.isGone(never)
	w.seen(stays, true)
	time.Sleep(soon) // of which each client asks for it two hundred times
	falls.either()
	open("10.20.0.5:7005")
	w.seen(falls, true)
	w.seen(stays, true)
	w.end()
}
