package frontend

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/cli/frontend/peers"
)

// nginxDefault is two hosts as everybody writes them.
const nginxDefault = `
events {}
http {
	access_log off;
	ssl_protocols TLSv1.2 TLSv1.3; # as Debian has it
	server {
		listen ADDR:8443 ssl http2;
		server_name a.example;
		ssl_certificate CERTS/a.example.crt;
		ssl_certificate_key CERTS/a.example.key;
		location / { return 200 "the data of A\n"; }
	}
	server {
		listen ADDR:8443 ssl http2;
		server_name b.example;
		ssl_certificate CERTS/b.example.crt;
		ssl_certificate_key CERTS/b.example.key;
		location / { return 200 "the data of B\n"; }
	}
}
`

// check runs a check and returns the verdicts by item.
func check(t *testing.T, cfg Config) (*Report, map[string]Item) {
	t.Helper()
	r, err := Check(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Item{}
	for _, i := range r.Items {
		by[i.Name] = i
		t.Logf("%-14s %-7s %s", i.Name, i.Verdict, i.Seen)
	}
	return r, by
}

func fill(conf, addr, certs string) string {
	return strings.NewReplacer("ADDR", addr, "CERTS", certs).Replace(conf)
}

// TestNginxDefault: X24, E15, E17, E18 and E13 against two hosts with default settings.
func TestNginxDefault(t *testing.T) {
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	addr := peers.Address()
	peers.Nginx(t, fill(nginxDefault, addr, certs), addr+":8443")
	_, by := check(t, Config{Addr: addr + ":8443", Name: "a.example", Other: "b.example", Roots: roots, Timeout: 20 * time.Second})
	for item, want := range map[string]Verdict{
		"no-name": Fail, "host": Fail, "authority": Fail, "host-form": Fail, "name-form": Fail, "absolute-form": Fail, "two-hosts": Pass, "pipelined": Fail,
		"second-hello": Fail, "ech": Pass, "renegotiation": Pass, "proxy-header": Pass,
	} {
		if by[item].Verdict != want {
			t.Errorf("%s: %+v, want %s", item, by[item], want)
		}
	}
}
