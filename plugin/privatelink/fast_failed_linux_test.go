package privatelink_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/freeport"
)

// TestFastpathFailedFirst: a Corefile that has failed is never in force, though the one before it, which has no privatelink, drops nothing
// of it. Reloads that succeed later put theirs in force alone.
func TestFastpathFailedFirst(t *testing.T) {
	port := freeport.Get(t)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	corefile := func(s string) caddy.Input {
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(s)}
	}
	without := fmt.Sprintf(".:%d {\nbind 127.0.0.1\ntemplate ANY ANY {\nrcode NOTIMP\n}\n}\n", port)
	instance := startInstance(t, corefile(without))
	defer func() { end(t, instance) }()
	bad := string(fastCorefile(port, "", "errors").Body()) +
		fmt.Sprintf(".:%d {\nbind 127.0.0.1\nprivatelink\n}\n", taken.Addr().(*net.TCPAddr).Port)
	if _, err := instance.Restart(corefile(bad)); err == nil {
		t.Fatal("a port that is taken was taken")
	}
	blocked := fastCorefile(port, "", "acl {\nblock net 127.0.0.0/8\n}")
	for i, in := range []caddy.Input{blocked, blocked, corefile(without), blocked} {
		next, err := instance.Restart(in)
		if err != nil {
			t.Fatal(err)
		}
		instance = next
		want, why := dns.RcodeRefused, "plugin"
		if string(in.Body()) == without {
			want, why = dns.RcodeNotImplemented, "none"
		}
		for range 20 { // each from another port
			if m := dial(t, "127.1.0.9", at).ask("contoso.database.windows.net.", dns.TypeA); m.Rcode != want {
				t.Fatalf("reload %d: answer %v, want %s", i, m, dns.RcodeToString[want])
			}
		}
		if got := fastGauge(t, "dns://"+at); got != why {
			t.Errorf("reload %d: reason %q, want %q", i, got, why)
		}
	}
}
