package linkexit_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/coremain"
)

// lines takes what is logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestTunnelServed is D18 at the listener: a client that asks for more than 200 unique labels of 60 bytes a second below one domain, by
// UDP and by TCP, TXT and NULL, is limited, with an event that names it and the domain; what is limited isn't asked of the upstream, and
// another client, which asks meanwhile, is answered every time.
func TestTunnelServed(t *testing.T) {
	if err := coremain.Setup(); err != nil {
		t.Fatal(err)
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	log := new(lines)
	clog.SetOutput(log)
	t.Cleanup(func() { clog.SetOutput(os.Stdout) })
	u := startUpstream(t)
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: fmt.Appendf(nil, `.:0 {
    bind 127.0.0.1
    linknetwork one 127.1.0.0/16
    privatelink
    linkexit {
        mode open
        names 50
    }
    cache 30
    forward . %s {
        prefer_udp
    }
}`, u.addr)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, err := range instance.ShutdownCallbacks() {
			t.Error(err)
		}
		if err := instance.Stop(); err != nil {
			t.Error(err)
		}
	})
	server := serverOf(instance)
	udp, tcp := server.LocalAddr().String(), server.Addr().String()
	dial := func(network, from, to string) *dns.Conn {
		local := net.Addr(&net.UDPAddr{IP: net.ParseIP(from)})
		if network == "tcp" {
			local = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		conn, err := (&net.Dialer{LocalAddr: local}).Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &dns.Conn{Conn: conn}
	}
	query := func(conn *dns.Conn, name string, rrtype uint16) int {
		m, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(new(dns.Msg).SetQuestion(name, rrtype), conn)
		if err != nil {
			t.Error(err)
			return -1
		}
		return m.Rcode
	}

	stop := make(chan struct{})
	var others sync.WaitGroup
	asked := 0
	good := dial("udp", "127.1.0.10", udp)
	others.Go(func() {
		for ; ; asked++ {
			select {
			case <-stop:
				return
			default:
			}
			if code := query(good, fmt.Sprintf("n%d.tunnel.example.", asked%40), dns.TypeA); code != dns.RcodeSuccess {
				t.Errorf("another client has %s", dns.RcodeToString[code])
				return
			}
		}
	})
	ways := []*dns.Conn{dial("udp", "127.1.0.9", udp), dial("tcp", "127.1.0.9", tcp)}
	codes := map[uint16]map[int]int{dns.TypeTXT: {}, dns.TypeNULL: {}}
	began := time.Now()
	const labels = 400
	for i := range labels {
		rrtype := dns.TypeTXT
		if i%4 == 3 {
			rrtype = dns.TypeNULL
		}
		codes[rrtype][query(ways[i%2], fmt.Sprintf("%060x.t.tunnel.example.", i), rrtype)]++
	}
	t.Logf("%.0f labels a second", labels/time.Since(began).Seconds())
	close(stop)
	others.Wait()
	if got := codes[dns.TypeTXT]; got[dns.RcodeSuccess] != 50 || got[dns.RcodeRefused] != labels*3/4-50 {
		t.Errorf("TXT: %v", got)
	}
	if got := codes[dns.TypeNULL]; got[dns.RcodeRefused] != labels/4 {
		t.Errorf("NULL: %v", got)
	}
	if asked == 0 {
		t.Error("the other client was never answered")
	}
	u.mu.Lock()
	tunnelled := strings.Count(strings.Join(u.asked, " "), ".t.tunnel.example.")
	u.mu.Unlock()
	if tunnelled != 50 {
		t.Errorf("the upstream was asked for %d labels", tunnelled)
	}
	text := log.String()
	for _, want := range []string{"domain=tunnel.example", "client=127.1.0.9", "network=one", "reason=names"} {
		if !strings.Contains(text, want) {
			t.Errorf("no event says %s:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "over its limit"); n != 1 || strings.Contains(text, "client=127.1.0.10") {
		t.Errorf("%d events:\n%s", n, text)
	}
}
