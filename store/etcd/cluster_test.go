package etcd

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/postern-link/postern/internal/etcdtest"
)

// cluster is real etcd members in this process, each with a forwarder in front of its client port.
type cluster struct {
	members []*member
}

type member struct {
	config  *embed.Config
	server  *embed.Etcd // nil: stopped
	forward *forwarder  // what clients say to it
	peers   *forwarder  // what other members say to it
}

// newCluster starts n members.
func newCluster(t testing.TB, n int, settings ...func(*embed.Config)) *cluster {
	t.Helper()
	c := &cluster{}
	dir := t.TempDir()
	var initial []string
	for i := range n {
		name := fmt.Sprint("m", i)
		conf := etcdtest.Config(t, name, filepath.Join(dir, name))
		peer, client := conf.ListenPeerUrls[0], conf.ListenClientUrls[0]
		m := &member{config: conf, forward: newForwarder(t, client.Host), peers: newForwarder(t, peer.Host)}
		conf.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: m.peers.addr()}}
		conf.TickMs, conf.ElectionMs = 50, 500
		for _, set := range settings {
			set(conf)
		}
		initial = append(initial, conf.Name+"="+conf.AdvertisePeerUrls[0].String())
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		m.config.InitialCluster = strings.Join(initial, ",")
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.stop()
		}
	})
	var wg sync.WaitGroup
	for _, m := range c.members {
		wg.Go(func() { m.start(t) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return c
}

// isolate stalls all that is said to a member, and lets it pass again.
func (m *member) isolate(stalled bool) {
	m.forward.set(stalled, false)
	m.peers.set(stalled, false)
}

// start starts a member, again with its data after a stop.
func (m *member) start(t testing.TB) {
	t.Helper()
	conf := *m.config
	e, err := embed.StartEtcd(&conf)
	if err != nil {
		t.Errorf("start %s: %v", conf.Name, err)
		return
	}
	select {
	case <-e.Server.ReadyNotify():
		m.server = e
	case <-time.After(30 * time.Second):
		t.Errorf("%s isn't ready", conf.Name)
		e.Close()
	}
}

// stop ends a member without a word to its clients, and as abruptly as it can be within a process: nothing is
// handed over, and what it was doing is left.
func (m *member) stop() {
	if m.server == nil {
		return
	}
	m.forward.cut()
	m.server.Server.HardStop()
	m.server.Close()
	m.server = nil
}

// leader returns the member that leads, which there must be within a generous time.
func (c *cluster) leader(t testing.TB) *member {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, m := range c.members {
			if m.server != nil && m.server.Server.Leader() == m.server.Server.MemberID() {
				return m
			}
		}
	}
	t.Fatal("no leader")
	return nil
}

// endpoints are the forwarders' addresses.
func (c *cluster) endpoints() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.forward.addr())
	}
	return all
}

// client is one that sees no faults.
func (c *cluster) client(t testing.TB) *clientv3.Client {
	t.Helper()
	var direct []string
	for _, m := range c.members {
		direct = append(direct, m.config.ListenClientUrls[0].Host)
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: direct, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

// forwarder passes TCP connections on, until it is told not to.
type forwarder struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu      sync.Mutex
	stalled bool // no byte passes, and nobody is told
	mute    bool // the answers of the server don't pass
	wake    *sync.Cond
	conns   []net.Conn
	closed  bool
}

func newForwarder(t testing.TB, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{listener: l, to: to}
	f.wake = sync.NewCond(&f.mu)
	f.wg.Go(f.accept)
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		f.closed = true
		f.mu.Unlock()
		f.cut()
		f.wg.Wait()
	})
	return f
}

func (f *forwarder) addr() string { return f.listener.Addr().String() }

func (f *forwarder) accept() {
	for {
		in, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() { f.carry(in) })
	}
}

func (f *forwarder) carry(in net.Conn) {
	defer in.Close()
	if !f.keep(in) {
		return
	}
	f.pass(false) // a stalled network takes no SYN
	out, err := net.Dial("tcp", f.to)
	if err != nil {
		return
	}
	defer out.Close()
	if !f.keep(out) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { f.copy(out, in, false) })
	f.copy(in, out, true)
	wg.Wait()
}

func (f *forwarder) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return !f.closed
}

func (f *forwarder) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		f.pass(answers)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				from.Close()
			}
			return
		}
	}
}

// pass waits until bytes may pass.
func (f *forwarder) pass(answers bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.closed && (f.stalled || answers && f.mute) {
		f.wake.Wait()
	}
}

// set says what passes from now on.
func (f *forwarder) set(stalled, mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stalled, f.mute = stalled, mute
	f.wake.Broadcast()
}

// cut closes the connections.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = slices.Delete(f.conns, 0, len(f.conns))
	f.wake.Broadcast()
}
