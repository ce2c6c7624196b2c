package proxy

import (
	"net/netip"
	"testing"
)

// What the first flows of a service have counted stays when a name of another one leads elsewhere before the probes
// have followed the snapshot.
func TestEarlySetStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Settings{})
	w.swap(service("new", 7001, netip.MustParseAddrPort("127.0.0.1:1")), endpoint("e", "new", nextAddr(t)))
	v := w.now.Load().Service("new")
	set := w.proxy.health.set(v)
	w.proxy.health.renamed("db.example")
	if w.proxy.health.set(v) != set {
		t.Error("the service has other targets")
	}
	w.proxy.Update(w.now.Load())
	if w.proxy.health.set(v) != set {
		t.Error("the service has other targets once it is in the view")
	}
}
