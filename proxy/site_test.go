package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/link"
)

// An endpoint's flows go to targets of its site, and elsewhere while none of them is of use; its health is that of its site.
func TestSites(t *testing.T) {
	t.Parallel()
	site := func(list ...string) (all link.Sites) {
		for _, s := range list {
			p, err := link.ParseSitePrefix(s)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		return all
	}
	at := func(name, host string) *tcptest.Server {
		return tcptest.Serve(t, host+":0", func(c *net.TCPConn) {
			c.SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, make([]byte, 1)); err == nil { // else a probe
				io.WriteString(c, name)
			}
		})
	}
	paris, lyon := at("a", "127.50.1.1"), at("b", "127.50.2.1")
	a, b := paris.Addr, lyon.Addr
	w := newWorld(t, Settings{ProbeInterval: 100 * time.Millisecond},
		service("svc", 7001, a, targetsOf(a, b), func(s *link.Service) { s.Sites = site("paris=127.50.1.0/24", "lyon=127.50.2.0/24") }),
		endpoint("e", "svc", nextAddr(t)))
	corp := *w.now.Load().Network("corp")
	corp.Sites = site("lyon=" + w.host() + "/32")
	w.apply(link.PutNetwork{Network: corp})
	eventually(t, "both are up", func() bool { return w.status(a).Up && w.status(b).Up })
	healthy := func(paris, lyon, brest bool) bool {
		return w.proxy.HealthyAt("svc", "paris") == paris && w.proxy.HealthyAt("svc", "lyon") == lyon && w.proxy.HealthyAt("svc", "brest") == brest
	}
	if !healthy(true, true, true) || w.proxy.HealthyAt("nothing", "lyon") {
		t.Error("the health of sites whose targets are up, or of no service")
	}
	for range 8 {
		if name := w.mustAsk(); name != "b" {
			t.Errorf("a flow to an endpoint in Lyon goes to %s", name)
		}
	}
	lyon.Close()
	eventually(t, "Lyon is down, and where there is no target the service isn't", func() bool { return healthy(true, false, true) })
	for range 4 {
		if name := w.mustAsk(); name != "a" {
			t.Errorf("while Lyon is down a flow goes to %s", name)
		}
	}
	w.apply(edited(w, func(s *link.Service) { s.Sites = nil })...)
	if !healthy(true, true, true) {
		t.Error("without sites there is one health")
	}
}
