package fastpath

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel numbers the sockets of an address in an order that it tells nobody: that in which they were bound, until one is
// closed and the last takes its place. So the numbers are found out: a datagram that names a number is led there, and each socket says
// which ones it got. The filter of that time leads all else as before.
//
// A number beyond the last is led anywhere, by the hash of the addresses. Each number is therefore asked from several ports, and is a
// socket's only if all of them came to it. Where another process reads the same sockets it takes some away, and nothing is found.

// probe is the search for the numbers of a group's sockets.
type probe struct {
	token [8]byte
	found chan place
}

// place is a number that a probe has named, and where it came.
type place struct {
	socket *socket
	at     int
	from   int
}

// A probe's datagram is a header that is a response, which CoreDNS ignores, then a token, a number, and which port it is from.
const (
	probeToken  = headerSize
	probeNumber = probeToken + 8
	probeFrom   = probeNumber + 2
	probeSize   = probeFrom + 2
)

const (
	// probeTime is how long is waited for the datagrams of a probe. They don't leave the machine.
	probeTime = 200 * time.Millisecond
	// probePorts is from how many ports each number is asked.
	probePorts = 4
)

// probed reports whether a datagram is one of a probe, and takes it.
func (g *Group) probed(s *socket, b []byte) bool {
	p := g.probe.Load()
	if p == nil || len(b) != probeSize || [8]byte(b[probeToken:probeNumber]) != p.token {
		return false
	}
	select {
	case p.found <- place{s, int(binary.BigEndian.Uint16(b[probeNumber:])), int(binary.BigEndian.Uint16(b[probeFrom:]))}:
	default:
	}
	return true
}

// locate returns the numbers of the group's sockets in their order, nil where they can't be found out now. total is up to where they are
// looked for. The error is that the kernel takes no filter.
func (g *Group) locate(total int) ([]int, error) {
	p := &probe{found: make(chan place, probePorts*total)}
	if _, err := rand.Read(p.token[:]); err != nil {
		return nil, err
	}
	for _, to := range g.reached() {
		conns := dialAll(to)
		if conns == nil {
			continue
		}
		err := g.attach(toNumber(p.token, g.at))
		var at []int
		if err == nil {
			g.probe.Store(p)
			at = g.search(p, conns, total)
			g.probe.Store(nil)
		}
		for _, c := range conns {
			c.Close()
		}
		if at != nil || err != nil {
			return at, err
		}
	}
	return nil, nil
}

// reached returns addresses at which the sockets of the group are reached. Those on all addresses aren't where other sockets have one
// for themselves.
func (g *Group) reached() []netip.AddrPort {
	if !g.addr.Addr().IsUnspecified() {
		return []netip.AddrPort{g.addr}
	}
	all := []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 83, 53, 7}), g.addr.Port()), // nobody's
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), g.addr.Port()),
	}
	if g.addr.Addr().Is6() {
		all = append(all, netip.AddrPortFrom(netip.IPv6Loopback(), g.addr.Port()))
	}
	return all
}

// dialAll returns sockets to probe an address from; nil where they can't be had.
func dialAll(to netip.AddrPort) (conns []*net.UDPConn) {
	for range probePorts {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			for _, c := range conns {
				c.Close()
			}
			return nil
		}
		conns = append(conns, c)
	}
	return conns
}

// search sends the datagrams of a probe and returns what is found.
func (g *Group) search(p *probe, conns []*net.UDPConn, total int) []int {
	var b [probeSize]byte
	b[2] = 0x80
	copy(b[probeToken:], p.token[:])
	seen := make(map[place]bool)
	end := time.NewTimer(probeTime)
	defer end.Stop()
	for {
		for n := range total {
			for from, c := range conns {
				binary.BigEndian.PutUint16(b[probeNumber:], uint16(n))
				binary.BigEndian.PutUint16(b[probeFrom:], uint16(from))
				_, _ = c.Write(b[:])
			}
		}
		again := time.NewTimer(probeTime / 4) // some were lost
		for waiting := true; waiting; {
			select {
			case found := <-p.found:
				seen[found] = true
				if at := g.places(seen, total); at != nil {
					again.Stop()
					return at
				}
			case <-again.C:
				waiting = false
			case <-end.C:
				again.Stop()
				return nil
			}
		}
	}
}

// places returns the numbers of the sockets in their order, nil where one isn't known yet: the lowest that has come from all ports to it,
// and to no other.
func (g *Group) places(seen map[place]bool, total int) []int {
	if len(seen) < probePorts*len(g.sockets) {
		return nil
	}
	all := make([]int, len(g.sockets))
	for i, s := range g.sockets {
		all[i] = -1
		for n := 0; n < total && all[i] < 0; n++ {
			came := 0
			for from := range probePorts {
				if seen[place{s, n, from}] {
					came++
				}
				for _, other := range g.sockets {
					if other != s && seen[place{other, n, from}] {
						came = -probePorts
					}
				}
			}
			if came == probePorts {
				all[i] = n
			}
		}
		if all[i] < 0 {
			return nil
		}
	}
	return all
}

// toNumber returns a filter that leads datagrams with a token to the number that they name, and others as spread does; with
// nothing to spread to, anywhere.
func toNumber(token [8]byte, at []int) []unix.SockFilter {
	const abs = unix.BPF_LD | unix.BPF_ABS
	jump := func(k uint32, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: no}
	}
	f := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		jump(probeSize, 6),
		{Code: abs | unix.BPF_W, K: probeToken},
		jump(binary.BigEndian.Uint32(token[:]), 4),
		{Code: abs | unix.BPF_W, K: probeToken + 4},
		jump(binary.BigEndian.Uint32(token[4:]), 2),
		{Code: abs | unix.BPF_H, K: probeNumber},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	if len(at) == 0 {
		return append(f, anywhere...)
	}
	return append(f, spread(at)...)
}
