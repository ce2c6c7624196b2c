package linkexit_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/coremain"
	"github.com/postern-link/postern/internal/dnstest"
)

// upstream is a server of others that notes what it is asked.
type upstream struct {
	addr string

	mu    sync.Mutex
	asked []string
}

func (u *upstream) has(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Contains(strings.Join(u.asked, " "), name)
}

// startUpstream answers with an address of the inside for names below inside.example, with an alias to a name of ours for
// custom.example, else with one of the outside.
func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := new(upstream)
	u.addr = dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		name := r.Question[0].Name
		u.mu.Lock()
		u.asked = append(u.asked, strings.ToLower(name))
		u.mu.Unlock()
		m := new(dns.Msg).SetReply(r)
		m.RecursionAvailable = true
		list := []string{name + " 300 IN A 198.51.100.1"}
		switch {
		case dns.IsSubDomain("inside.example.", name):
			list = []string{name + " 300 IN A 10.9.9.9"}
		case name == "custom.example.":
			list = []string{name + " 300 IN CNAME contoso.database.windows.net.", "contoso.database.windows.net. 300 IN A 10.9.9.9"}
		}
		m.Answer = dnstest.Records(t, list...)
		_ = w.WriteMsg(m)
	})
	return u
}

const corefile = `.:0 {
    bind 127.0.0.1
    linknetwork one 127.0.0.1/32 {
        endpoints 10.200.0.0/24
    }
    linknetwork two 127.0.0.2/32
    linkservice sql {
        names contoso.database.windows.net
        target 127.0.0.9:1433
        approve one
    }
    linkendpoint sql-one {
        service sql
        network one
        address 10.200.0.5
    }
    privatelink
    linkexit one {
        mode allow-list LIST
    }
    linkexit two {
        mode closed
    }
    linkexit {
        mode open
    }
    cache 30
    forward . UPSTREAM
}`

// ask asks from an address.
func ask(t *testing.T, from, to, name string, rrtype uint16) *dns.Msg {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := new(dns.Msg).SetQuestion(name, rrtype)
	r.SetEdns0(1232, false)
	m, _, err := (&dns.Client{Timeout: 10 * time.Second}).ExchangeWithConn(r, &dns.Conn{Conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestServer: the directive in a whole server, between privatelink and the cache.
func TestServer(t *testing.T) {
	if err := coremain.Setup(); err != nil {
		t.Fatal(err)
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	u := startUpstream(t)
	list := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(list, []byte("custom.example\n.inside.example\nshared.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("LIST", list, "UPSTREAM", u.addr).Replace(corefile)
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"})
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
	at := serverOf(instance).LocalAddr().String()
	last := func(m *dns.Msg) string {
		if n := len(m.Answer); n > 0 {
			if a, ok := m.Answer[n-1].(*dns.A); ok {
				return a.A.String()
			}
		}
		return dns.RcodeToString[m.Rcode]
	}
	for _, tt := range []struct{ name, from, ask, want string }{
		{"ours", "127.0.0.1", "contoso.database.windows.net.", "10.200.0.5"},
		{"custom domain: the address of the endpoint isn't dropped", "127.0.0.1", "custom.example.", "10.200.0.5"},
		{"inside", "127.0.0.1", "a.inside.example.", "NOERROR"},
		{"inside, from the cache", "127.0.0.1", "a.inside.example.", "NOERROR"},
		{"inside, from the cache, for another client", "127.0.0.3", "a.inside.example.", "NOERROR"},
		{"listed", "127.0.0.1", "shared.example.", "198.51.100.1"},
		{"not listed", "127.0.0.1", "secret-one.example.", "REFUSED"},
		{"closed, though cached for others", "127.0.0.2", "shared.example.", "REFUSED"},
		{"closed", "127.0.0.2", "secret-two.example.", "REFUSED"},
		{"closed, in a privatelink zone", "127.0.0.2", "secret-two.privatelink.database.windows.net.", "REFUSED"},
		{"open for the rest", "127.0.0.3", "other.example.", "198.51.100.1"},
	} {
		if got := last(ask(t, tt.from, at, tt.ask, dns.TypeA)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if !u.has("other.example.") || u.has("secret") {
		t.Errorf("the upstream was asked: %v", u.asked)
	}
}

// TestWrongList: a list that is wrong keeps a server from starting, with file and line.
func TestWrongList(t *testing.T) {
	if err := coremain.Setup(); err != nil {
		t.Fatal(err)
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	list := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(list, []byte("a.example\nb..example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("LIST", list, "UPSTREAM", "127.0.0.1:1").Replace(corefile)
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"})
	if err == nil || !strings.Contains(err.Error(), `Corefile:19 - linkexit: mode: `+list+`:2: "b..example": a label is empty`) {
		t.Errorf("error %v", err)
	}
	instance.ShutdownCallbacks()
}

// serverOf returns the server of an instance's block, beside which there may be some that serve nothing.
func serverOf(instance *caddy.Instance) caddy.ServerListener {
	servers := instance.Servers()
	return servers[slices.IndexFunc(servers, func(s caddy.ServerListener) bool { return s.LocalAddr() != nil })]
}
