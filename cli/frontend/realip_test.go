package frontend

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/cli/frontend/peers"
)

// TestClientsAddress: the site behind both stages of nginx's recipe sees the client of the PROXY header, and a stranger who
// writes Postern's address into one gets nothing.
func TestClientsAddress(t *testing.T) {
	const section = "nginx, a listener for each name"
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	addr := peers.Address() + ":8443"
	conf := here(t, recipe(t, section, "nginx"), "10.20.0.4:443", addr, "root /srv/a.example;", "return 200 $remote_addr;", "/srv/", sites(t)+"/",
		"/etc/nginx/certs/", certs+"/", "/run/postern-sites/", sockets(t)+"/", "10.20.0.101", "127.0.0.1")
	peers.Nginx(t, "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nevents {}\n"+conf, addr)
	ask := func(from, header string) (string, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 20 * time.Second}
		conn, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(conn, header); err != nil {
			return "", err
		}
		c := http.Client{Transport: &http.Transport{DialTLS: func(string, string) (net.Conn, error) {
			return tls.Client(conn, &tls.Config{ServerName: "a.example", RootCAs: roots}), nil
		}}}
		resp, err := c.Get("https://a.example/")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return strings.TrimSpace(string(b)), err
	}
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 127.0.0.1 4000 8443\r\n":     "192.0.2.7",
		"PROXY TCP6 2001:db8::7 2001:db8::1 4000 8443\r\n": "2001:db8::7",
	} {
		if got, err := ask("127.0.0.1", header); got != want || err != nil {
			t.Errorf("the site sees %q (%v), want %s", got, err, want)
		}
	}
	if got, err := ask("127.0.0.9", fmt.Sprintf("PROXY TCP4 127.0.0.1 %s 4000 8443\r\n", strings.TrimSuffix(addr, ":8443"))); err == nil {
		t.Errorf("a stranger who says to be Postern is answered %q", got)
	}
}
