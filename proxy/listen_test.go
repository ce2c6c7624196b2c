package proxy

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// routedPool adds a pool of addresses that aren't loopback ones to the network of the tests.
func routedPool() link.Change {
	return link.PutNetwork{Network: link.Network{
		ID:       "corp",
		Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Pools:    []netip.Prefix{netip.MustParsePrefix("127.77.0.0/16"), netip.MustParsePrefix("10.255.77.0/24"), netip.MustParsePrefix("fd00:77::/64")},
	}}
}

func (w *world) listening() map[netip.AddrPort]bool {
	w.proxy.mu.Lock()
	defer w.proxy.mu.Unlock()
	all := map[netip.AddrPort]bool{}
	for at := range w.proxy.listeners {
		all[at.AddrPort] = true
	}
	return all
}

func checkListening(t *testing.T, w *world, want ...string) {
	t.Helper()
	got := w.listening()
	for _, addr := range want {
		if !got[netip.MustParseAddrPort(addr)] {
			t.Errorf("not listening on %s", addr)
		}
	}
	if len(got) != len(want) {
		t.Errorf("listening on %v, want %v", got, want)
	}
}

func TestListeners(t *testing.T) {
	at := echo(t)
	w := newWorld(t, Settings{}, service("svc", 7311, at), endpoint("e", "svc", "127.77.9.1"))
	checkListening(t, w, "127.77.9.1:7311")
	client := dial(t, "127.77.9.1:7311")
	io.WriteString(client, "x") // what is still in the queue of a listener ends with it
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	w.apply(endpoint("f", "svc", "127.77.9.2"))
	checkListening(t, w, "127.77.9.1:7311", "127.77.9.2:7311")

	// A routed address takes the port for every address; flows don't notice.
	w.apply(routedPool(), endpoint("r", "svc", "10.255.77.5"))
	checkListening(t, w, "0.0.0.0:7311")
	for _, addr := range []string{"127.77.9.1:7311", "127.77.9.2:7311"} {
		c := dial(t, addr)
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	w.apply(endpoint("r6", "svc", "fd00:77::5"))
	checkListening(t, w, "0.0.0.0:7311", "[::]:7311")

	w.apply(link.DeleteEndpoint{ID: "r"}, link.DeleteEndpoint{ID: "r6"}, link.DeleteEndpoint{ID: "f"})
	checkListening(t, w, "127.77.9.1:7311")
	io.WriteString(client, "still here")
	if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
		t.Error(err)
	}
}

func TestPerAddress(t *testing.T) {
	w := newWorld(t, Settings{PerAddress: true}, routedPool(), service("svc", 7312, echo(t)), endpoint("r", "svc", "10.255.77.5"))
	checkListening(t, w, "10.255.77.5:7312") // not an address of this host: IP_FREEBIND
}

// A listener that can't be had fails Prepare, and nothing is left of it; in Update it is tried again.
func TestListenerTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.77.9.20:7313")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w := newWorld(t, Settings{})
	w.swap(service("svc", 7313, echo(t)), inCorefile(endpoint("a", "svc", "127.77.9.19")), inCorefile(endpoint("b", "svc", "127.77.9.20")))
	if _, err := w.proxy.Prepare(w.now.Load(), Settings{}); err == nil || !strings.Contains(err.Error(), "127.77.9.20:7313") {
		t.Fatalf("error %v doesn't name the address", err)
	}
	free, err := net.Listen("tcp", "127.77.9.19:7313")
	if err != nil {
		t.Fatalf("Prepare left a listener: %v", err)
	}
	free.Close()

	w.proxy.Update(w.now.Load())
	checkListening(t, w, "127.77.9.19:7313")
	if w.metric(t, "postern_proxy_listener_failures_total") < 1 || len(w.log.lines("can't be opened", "127.77.9.20:7313")) != 1 {
		t.Error("the failure isn't counted or logged")
	}
	taken.Close()
	eventually(t, "it is opened later", func() bool { return len(w.listening()) == 2 })
}

// inCorefile makes an endpoint one that a declaration has.
func inCorefile(e link.PutEndpoint) link.PutEndpoint {
	e.Endpoint.Origin = link.Origin{Declaration: "host", File: "Corefile", Line: 1}
	return e
}

// A22: no port that a tenant asks for keeps a node from starting, whether another program has it or this one
// is going to. What can be opened is, the declared ones too.
func TestPortOfTenantTaken(t *testing.T) {
	tests := map[string]struct {
		taken    string // by another program; "": nobody
		own      string // of this process, not open yet
		addr     string // of the tenant's endpoint
		declared bool
		refused  string // what the error names
	}{
		"another program, routed":           {taken: "127.77.9.61:7316", addr: "10.255.77.6"},
		"another program, loopback":         {taken: "127.77.9.60:7316", addr: "127.77.9.60"},
		"DNS on an address":                 {own: "127.0.0.1:7316", addr: "10.255.77.6"},
		"DNS on all addresses":              {own: "[::]:7316", addr: "127.77.9.60"},
		"DNS on all of IPv4":                {own: "0.0.0.0:7316", addr: "127.77.9.60"},
		"declared, another program, routed": {taken: "127.77.9.61:7316", addr: "10.255.77.6", declared: true, refused: "0.0.0.0:7316"},
		"declared, DNS":                     {own: "[::]:7316", addr: "127.77.9.60", declared: true, refused: "127.77.9.60:7316"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Settings{}, routedPool())
			settings := Settings{}
			if tt.taken != "" {
				l, err := net.Listen("tcp", tt.taken)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			} else {
				settings.Own = []netip.AddrPort{netip.MustParseAddrPort(tt.own)}
			}
			e := endpoint("a", "a", tt.addr)
			if tt.declared {
				e = inCorefile(e)
			}
			w.swap(service("a", 7316, echo(t)), e, service("b", 7317, echo(t)), inCorefile(endpoint("b", "b", "127.77.9.62")),
				service("c", 7318, echo(t)), endpoint("c", "c", "127.77.9.63"))
			next, err := w.proxy.Prepare(w.now.Load(), settings)
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("error %v doesn't name %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			next.Commit()
			checkListening(t, w, "127.77.9.62:7317", "127.77.9.63:7318")
			if w.metric(t, "postern_proxy_listener_failures_total") < 1 || len(w.log.lines("can't be opened", ":7316")) != 1 {
				t.Error("the failure isn't counted or logged")
			}
			if got := w.proxy.Listeners(); len(got) != 2 {
				t.Errorf("it tells of the listeners %v", got)
			}
		})
	}
}

// C10: at an address that this process listens on itself nobody is let in, whatever the state says.
func TestOwnAddress(t *testing.T) {
	own := netip.MustParseAddrPort("127.77.9.65:18443")
	w := newWorld(t, Settings{Own: []netip.AddrPort{own}}, service("svc", 7319, echo(t)), endpoint("a", "svc", "127.77.9.65"), endpoint("b", "svc", "127.77.9.66"))
	for addr, reason := range map[string]policy.Reason{"127.77.9.65:7319": policy.NoEndpoint, "127.77.9.66:7319": ""} {
		v := w.proxy.now().judge(policy.Request{Source: netip.MustParseAddrPort("127.0.0.1:999"), Local: netip.MustParseAddrPort(addr)})
		if v.Allow != (reason == "") || v.Reason != reason {
			t.Errorf("%s: %+v", addr, v)
		}
	}
}

func TestPrepare(t *testing.T) {
	w := newWorld(t, Settings{})
	w.swap(service("svc", 7314, echo(t)), endpoint("e", "svc", "127.77.9.30"))
	prepare := func() *Prepared {
		t.Helper()
		next, err := w.proxy.Prepare(w.now.Load(), Settings{MaxPerSource: 1})
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	first := prepare()
	checkListening(t, w)
	first.Abandon()
	first.Commit() // does nothing
	checkListening(t, w)

	next := prepare()
	c := dial(t, "127.77.9.30:7314") // queued
	io.WriteString(c, "x")
	w.proxy.Update(w.now.Load()) // takes the prepared listener rather than fail
	if w.metric(t, "postern_proxy_listener_failures_total") != 0 {
		t.Error("Update stood against Prepare")
	}
	next.Commit()
	checkListening(t, w, "127.77.9.30:7314")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if got := w.proxy.settings.Load().MaxPerSource; got != 1 {
		t.Errorf("settings aren't in force: %d", got)
	}
	again := prepare() // nothing is new
	if len(again.opened) != 0 {
		t.Error("opened again")
	}
	again.Commit()
	c.Write([]byte("y"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("the flow didn't survive: %v", err)
	}
	w.proxy.Close()
	if _, err := w.proxy.Prepare(w.now.Load(), Settings{}); err == nil {
		t.Error("Prepare after Close")
	}
}
