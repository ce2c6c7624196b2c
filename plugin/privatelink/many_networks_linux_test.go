package privatelink_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/plugin/privatelink"
)

// manyNetworks is how many networks TestServerManyNetworks has.
const manyNetworks = 10_000

// crowdedCorefile is two servers for many networks, each of which has one client and an endpoint of the same service at the address that
// endpoint says: one with a fast path, and one without.
func crowdedCorefile(ports [2]uint16, upstream string, endpoint func(i int) net.IP) caddy.CaddyfileInput {
	var b strings.Builder
	for i, way := range []string{"on", "off"} {
		fmt.Fprintf(&b, ".:%d {\nbind 127.0.0.1\nprivatelink {\nfastpath %s\n}\ncache\nforward . %s {\nprefer_udp\n}\n", ports[i], way, upstream)
		if i == 0 {
			fmt.Fprint(&b, "}\n")
		}
	}
	fmt.Fprint(&b, "linkservice sql {\nnames contoso.database.windows.net\ntarget 10.20.0.4:1433\napprove *\n}\n")
	for i := range manyNetworks {
		fmt.Fprintf(&b, "linknetwork n%d %s/32 {\nendpoints %s/31\n}\n", i, clientOfMany(i), endpointOfMany(i))
		fmt.Fprintf(&b, "linkendpoint e%d {\nservice sql\nnetwork n%d\naddress %s\n}\n", i, i, endpoint(i))
	}
	fmt.Fprint(&b, "}\n")
	return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(b.String())}
}

// clientOfMany is the client of a network, and for other numbers of none; endpointOfMany the first address of the network's pool.
func clientOfMany(i int) net.IP   { return net.IPv4(127, 10, byte(i>>8), byte(i)) }
func endpointOfMany(i int) net.IP { return net.IPv4(10, 200+byte(i>>15), byte(i>>7), byte(i<<1)) }

// manyClients asks from any address with one socket.
type manyClients struct {
	conn *ipv4.PacketConn
	to   net.Addr
	wire []byte
}

func newManyClients(t *testing.T, to string, name string) *manyClients {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &manyClients{conn: ipv4.NewPacketConn(conn)}
	if err := c.conn.SetControlMessage(ipv4.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	if c.to, err = net.ResolveUDPAddr("udp4", to); err != nil {
		t.Fatal(err)
	}
	if c.wire, err = new(dns.Msg).SetQuestion(name, dns.TypeA).Pack(); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask asks from the clients of networks, up to 64 at a time, and hands each answer to check with the number of the network that it came for.
func (c *manyClients) ask(t *testing.T, networks []int, check func(i int, m *dns.Msg)) {
	t.Helper()
	const window = 64
	buf := make([]byte, 2048)
	for len(networks) > 0 {
		some := networks[:min(window, len(networks))]
		networks = networks[len(some):]
		left := make(map[int]bool, len(some))
		for id, i := range some {
			binary.BigEndian.PutUint16(c.wire, uint16(id))
			if _, err := c.conn.WriteTo(c.wire, &ipv4.ControlMessage{Src: clientOfMany(i)}, c.to); err != nil {
				t.Fatal(err)
			}
			left[id] = true
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for len(left) > 0 {
			n, at, _, err := c.conn.ReadFrom(buf)
			if err != nil {
				t.Fatalf("%d of %d answers are missing: %v", len(left), len(some), err)
			}
			m := new(dns.Msg)
			if err := m.Unpack(buf[:n]); err != nil {
				t.Fatal(err)
			}
			if !left[int(m.Id)] || !at.Dst.Equal(clientOfMany(some[m.Id])) {
				t.Fatalf("to %s: an answer to nothing, or to somebody else: %v", at.Dst, m)
			}
			delete(left, int(m.Id))
			check(some[m.Id], m)
		}
	}
}

// TestServerManyNetworks: of ten thousand networks each has the address of its own endpoint of one service, from the table and from the plugins, with
// a cache behind them; a client of none has the public address. A reload that moves the endpoint of one changes nothing for the others.
func TestServerManyNetworks(t *testing.T) {
	up := startPublic(t)
	ports := [2]uint16{freeport.Get(t), freeport.Get(t)}
	before := heap()
	instance := startInstance(t, crowdedCorefile(ports, up.addr, endpointOfMany))
	defer func() { end(t, instance) }()
	order := rand.Perm(manyNetworks)
	for i := range 40 { // of no network
		order = append(order, manyNetworks+i)
	}
	const moved = 4711
	elsewhere := func(i int) net.IP {
		addr := endpointOfMany(i)
		if i == moved {
			addr[len(addr)-1]++
		}
		return addr
	}
	moving, wrong := false, 0
	check := func(i int, m *dns.Msg) {
		t.Helper()
		want := endpointOfMany(i).String()
		if i >= manyNetworks {
			want = "203.0.113.1"
		}
		got := lastA(m)
		if got != want && (!moving || got != elsewhere(i).String()) || i < manyNetworks && len(m.Answer) != 2 || i >= manyNetworks && len(m.Answer) != 1 {
			if wrong++; wrong < 10 {
				t.Errorf("network %d: %v, want %s", i, m, want)
			}
		}
	}
	var servers [2]*manyClients
	for i, port := range ports {
		servers[i] = newManyClients(t, fmt.Sprintf("127.0.0.1:%d", port), publicName)
		for range 2 { // new, and from the table
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			servers[i].ask(t, order, check)
		}
	}
	if n := privatelink.FastAnswered(t, fmt.Sprintf("dns://127.0.0.1:%d", ports[0])); n < manyNetworks/2 {
		t.Errorf("%v answers from the table", n)
	}
	if grown := (heap() - before) / manyNetworks; grown > 40<<10 {
		t.Errorf("%d bytes of heap a network, 12,000 were usual", grown)
	}

	moving = true
	over := make(chan error, 1)
	go func() {
		next, err := instance.Restart(crowdedCorefile(ports, up.addr, elsewhere))
		if err == nil {
			instance = next
		}
		over <- err
	}()
	for going := true; going; {
		for _, s := range servers {
			s.ask(t, order[:640], check)
		}
		select {
		case err := <-over:
			if err != nil {
				t.Fatal(err)
			}
			going = false
		case <-time.After(20 * time.Millisecond): // the reload needs a processor
		}
	}
	for _, s := range servers {
		eventually(t, "the endpoint has moved", func() (is bool) {
			s.ask(t, []int{moved}, func(i int, m *dns.Msg) { check(i, m); is = lastA(m) == elsewhere(i).String() })
			return is
		})
		s.ask(t, order, check)
	}
}

// heap returns how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
