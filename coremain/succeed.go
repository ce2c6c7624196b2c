package coremain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/node/confine"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/plugin/linkstore"
	"github.com/postern-link/postern/plugin/privatelink"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// estateTime bounds the wait for what the process before this one hands over at first.
const estateTime = 30 * time.Second

// estate is what this process has of the one whose place it takes.
type estate struct {
	conn    *succession.Conn // nil: that process has ended, and the service manager kept what it listened on
	sandbox []confine.Rules
	notify  int // descriptor of the service manager's socket, -1: none
	version string

	listeners []*net.TCPListener // of endpoints and the API
	datagrams []*net.UDPConn     // of endpoints
	dns       []*inherited
	left      *node.Inheritance
}

// receiveEstate returns what the process before this one hands over; nil where there is none.
func receiveEstate() (*estate, error) {
	conn, err := succession.Predecessor()
	if conn == nil || err != nil {
		return nil, err
	}
	e := &estate{conn: conn, notify: -1}
	if err := e.receive(); err != nil {
		err = fmt.Errorf("take the place of the running process: %w", err)
		e.fail(err)
		return nil, err
	}
	return e, nil
}

// receive reads until all sockets have come.
func (e *estate) receive() error {
	if err := e.conn.SetReadDeadline(time.Now().Add(estateTime)); err != nil {
		return err
	}
	var sockets []succession.Socket
	var fds []int
	for {
		m, more, err := e.conn.Receive()
		switch {
		case err != nil:
			return err
		case m.Kind == succession.Sockets && len(m.Sockets) == len(more):
			sockets, fds = append(sockets, m.Sockets...), append(fds, more...)
			continue
		case m.Kind != succession.Begin || m.Protocol != succession.Protocol:
			return fmt.Errorf("version %s hands over in another way than this one takes; restart it", m.Version)
		}
		if e.sandbox, e.version = m.Sandbox, m.Version; m.Notify && len(more) == 1 {
			e.notify = more[0]
		}
		return errors.Join(e.sort(sockets, fds), e.conn.SetReadDeadline(time.Time{}))
	}
}

// sort makes sockets of descriptors: those that share their ports are of CoreDNS or beside it, and all others of the node.
func (e *estate) sort(sockets []succession.Socket, fds []int) error {
	tcp, udp := map[netip.AddrPort][]*net.TCPListener{}, map[netip.AddrPort][]*net.UDPConn{}
	for i, s := range sockets {
		if s.Network == "udp" {
			c, err := succession.Packet(fds[i])
			if err != nil {
				return err
			}
			switch {
			case s.Apart:
				fastpath.Inherit(c, s.Place)
			case s.Shared:
				udp[s.Addr] = append(udp[s.Addr], c)
			default:
				e.datagrams = append(e.datagrams, c)
			}
			continue
		}
		l, err := succession.Listener(fds[i])
		if err != nil {
			return err
		}
		if s.Shared {
			tcp[s.Addr] = append(tcp[s.Addr], l)
		} else {
			e.listeners = append(e.listeners, l)
		}
	}
	// DNS has both of an address, as often as multisocket says; DNS over TLS and over HTTPS have one, under a name that
	// says which. So have metrics and the like, which CoreDNS opens anew beside those of the old process.
	for at, all := range tcp {
		for i, l := range all {
			if i < len(udp[at]) {
				e.dns = append(e.dns, newInherited("dns", at, l, udp[at][i])...)
			} else {
				e.dns = append(e.dns, newInherited("tls", at, l, nil)...)
				e.dns = append(e.dns, newInherited("https", at, l, nil)...)
			}
		}
	}
	for at, all := range udp { // what has no TCP beside it is of nobody
		for _, c := range all[min(len(all), len(tcp[at])):] {
			c.Close()
		}
	}
	return nil
}

// follow starts the server with this Corefile in the place of the other process. Its servers follow on
// one of no Corefile that has the inherited sockets: so Caddy hands them on as it does in a reload. What Caddy itself has
// for this (caddy.Upgrade) is not used: docs/decisions/0026-one-process-follows-another.md.
func (e *estate) follow(in caddy.Input, plain bool) error {
	if !plain {
		e.closeDNS() // CoreDNS would read no PROXY headers from them
	}
	registerInherited(e.dns)
	e.left = node.NewInheritance(e.listeners, e.datagrams, e.claim)
	linkstore.Inherit(e.left)
	pid := caddy.PidFile
	caddy.PidFile = "" // it is the other process's until this one is ready
	before, err := caddy.Start(caddy.CaddyfileInput{ServerTypeName: inheritedType})
	if err != nil {
		return err
	}
	caddy.PidFile = pid
	_, err = before.Restart(in)
	return err
}

// closeDNS closes the sockets of DNS, which the other process still has. CoreDNS opens its own beside them, and what is
// open and read by nobody would still get its share of the queries.
func (e *estate) closeDNS() {
	for _, s := range e.dns {
		s.close()
	}
	e.dns = nil
}

// claim returns when the state may be opened.
func (e *estate) claim(ctx context.Context) error {
	if e.conn == nil {
		return nil
	}
	if d, ok := ctx.Deadline(); ok {
		if err := e.conn.SetReadDeadline(d); err != nil {
			return err
		}
	}
	if e.conn.Send(succession.Message{Kind: succession.Claim, Protocol: succession.Protocol}) != nil {
		return nil // nobody has the state any more
	}
	m, _, err := e.conn.Receive()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("the running process doesn't hand the state over: %w", err)
	case m.Kind != succession.Granted:
		return fmt.Errorf("the running process doesn't hand the state over: %s", m.Why)
	}
	return e.conn.SetReadDeadline(time.Time{})
}

// unfit returns why this process must not take the place of the other one, though it has started: without a state no name
// would be answered, and all flows end.
func unfit() error {
	switch n := linkstore.Running(); {
	case n == nil:
		return errors.New("the Corefile says nothing of a state, so nobody could say which connections may go on; restart it")
	case n.Snapshot() == nil:
		return errors.New("the state can't be reached")
	}
	return nil
}

// ready tells the other process to accept no more, and judges its flows from now on.
func (e *estate) ready() {
	e.left.Close()
	privatelink.BeginFast()
	fastpath.DropInherited()
	n := linkstore.Running()
	if e.conn != nil {
		if err := e.conn.Send(succession.Message{Kind: succession.Ready, Hands: succession.Hands}); err != nil {
			clog.Warning("the process before this one has ended during the upgrade, and its flows with it")
		}
		clog.Infof("this process has taken the place of one with version %s", e.version)
		if n != nil {
			n.Host(e.conn)
		}
	} else if n != nil {
		n.Receive() // nobody else reads
	}
	if caddy.PidFile != "" {
		if err := os.WriteFile(caddy.PidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			clog.Errorf("pid file: %v", err)
		}
	}
}

// manager returns the descriptor of the service manager's socket, -1 for none. e may be nil.
func (e *estate) manager() int {
	if e == nil {
		return -1
	}
	return e.notify
}

// rules returns what the process before this one is kept to, and so is this one. e may be nil.
func (e *estate) rules() []confine.Rules {
	if e == nil {
		return nil
	}
	return e.sandbox
}

// fail tells the other process why this one won't take its place. It reports false where there is none, or none any more.
// e may be nil.
func (e *estate) fail(err error) bool {
	return e != nil && e.conn != nil && e.conn.Send(succession.Message{Kind: succession.Failed, Why: err.Error()}) == nil
}

// inheritedType is the type of servers that only hold inherited sockets, until those of the Corefile take them.
const inheritedType = "inherited"

func registerInherited(servers []*inherited) {
	caddy.RegisterServerType(inheritedType, caddy.ServerType{
		Directives: func() []string { return nil },
		NewContext: func(*caddy.Instance) caddy.Context { return inheritedContext(servers) },
	})
}

// inheritedContext implements [caddy.Context].
type inheritedContext []*inherited

// InspectServerBlocks implements [caddy.Context].
func (inheritedContext) InspectServerBlocks(_ string, blocks []caddyfile.ServerBlock) ([]caddyfile.ServerBlock, error) {
	return blocks, nil
}

// MakeServers implements [caddy.Context].
func (c inheritedContext) MakeServers() (all []caddy.Server, err error) {
	for _, s := range c {
		all = append(all, s)
	}
	return all, nil
}

// inherited holds the sockets of one address and serves nothing. It implements [caddy.GracefulServer].
type inherited struct {
	address string // as CoreDNS calls it, such as dns://127.0.0.1:53
	tcp     *net.TCPListener
	udp     *net.UDPConn
	stopped chan struct{}
	stop    func() error
}

// newInherited returns the sockets under all names that CoreDNS may have for them: what is bound to nothing has two. Caddy
// hands on descriptors of its own, so that one that nobody asks for does no harm.
func newInherited(scheme string, at netip.AddrPort, tcp *net.TCPListener, udp *net.UDPConn) (all []*inherited) {
	hosts := []string{at.Addr().String()}
	if at.Addr() == everyAddress() {
		hosts = append(hosts, "")
	}
	for _, host := range hosts {
		s := &inherited{address: scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(at.Port()))), tcp: tcp, udp: udp, stopped: make(chan struct{})}
		s.stop = sync.OnceValue(func() error { close(s.stopped); return s.close() })
		all = append(all, s)
	}
	return all
}

// everyAddress is what a socket is bound to that is bound to nothing: "::" where the system has IPv6.
var everyAddress = sync.OnceValue(func() netip.Addr {
	c, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return netip.IPv6Unspecified()
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
})

func (s *inherited) close() error {
	s.tcp.Close() // again, under its other name, does nothing
	if s.udp != nil {
		s.udp.Close()
	}
	return nil
}

// Listen implements [caddy.TCPServer].
func (s *inherited) Listen() (net.Listener, error) { return s.tcp, nil }

// Serve implements [caddy.TCPServer].
func (s *inherited) Serve(net.Listener) error { <-s.stopped; return nil }

// ListenPacket implements [caddy.UDPServer].
func (s *inherited) ListenPacket() (net.PacketConn, error) {
	if s.udp == nil {
		return nil, nil
	}
	return s.udp, nil
}

// ServePacket implements [caddy.UDPServer].
func (s *inherited) ServePacket(net.PacketConn) error { <-s.stopped; return nil }

// Stop implements [caddy.Stopper].
func (s *inherited) Stop() error { return s.stop() }

// Address implements [caddy.GracefulServer].
func (s *inherited) Address() string { return s.address }

// WrapListener implements [caddy.GracefulServer].
func (s *inherited) WrapListener(l net.Listener) net.Listener { return l }
