package fastpath

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel numbers the sockets of an address in an order that it tells nobody: that in which they were bound, until one is
// closed and the last takes its place. A filter has to know the numbers, so they are found out: a datagram that names
// a number is led there, and each socket says which ones it got. The filter of that time leads all
// else as before.

// probe is the search for the numbers of a group's sockets.
type probe struct {
	token [8]byte
	found chan place
}

// place is the number of a socket.
type place struct {
	socket *socket
	at     int
}

// A probe's datagram is a header that is a response, which CoreDNS ignores, then a token and a number.
const (
	probeToken  = headerSize
	probeNumber = probeToken + 8
	probeSize   = probeNumber + 2
)

// probeTime is how long is waited for the datagrams of a probe. They don't leave the machine.
const probeTime = 250 * time.Millisecond

// probed reports whether a datagram is one of a probe, and takes it.
func (g *Group) probed(s *socket, b []byte) bool {
	p := g.probe.Load()
	if p == nil || len(b) != probeSize || [8]byte(b[probeToken:probeNumber]) != p.token {
		return false
	}
	select {
	case p.found <- place{s, int(binary.BigEndian.Uint16(b[probeNumber:]))}:
	default:
	}
	return true
}

// locate returns the numbers of the group's sockets, nil where they can't be found out. total is how many sockets
// the address has, as far as is known.
func (g *Group) locate(total int) []int {
	p := &probe{found: make(chan place, 4*maxSockets)}
	if _, err := rand.Read(p.token[:]); err != nil {
		return nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(g.addr))
	if err != nil {
		return nil
	}
	defer c.Close()
	if g.attach(toNumber(p.token, g.at)) != nil {
		return nil
	}
	g.probe.Store(p)
	defer g.probe.Store(nil)
	var b [probeSize]byte
	b[2] = 0x80
	copy(b[probeToken:], p.token[:])
	// A few more than there should be: sockets that nobody here knows of may have smaller numbers.
	for i := range total + maxSockets {
		binary.BigEndian.PutUint16(b[probeNumber:], uint16(i))
		_, _ = c.Write(b[:])
	}
	at := make(map[*socket]int)
	timer := time.NewTimer(probeTime)
	defer timer.Stop()
	for len(at) < len(g.sockets) {
		select {
		case found := <-p.found:
			if n, ok := at[found.socket]; !ok || found.at < n { // a number beyond the last is led anywhere
				at[found.socket] = found.at
			}
		case <-timer.C:
			return nil
		}
	}
	// What was led anywhere may have come first: the true numbers are below the number of all sockets, and differ.
	return g.places(at, total)
}

// places returns the numbers in the order of the sockets, nil where two have the same.
func (g *Group) places(at map[*socket]int, total int) []int {
	var all []int
	for _, s := range g.sockets {
		n := at[s]
		if contains(all, n) || n >= total+maxSockets {
			return nil
		}
		all = append(all, n)
	}
	return all
}

// attach gives the kernel a filter for all sockets of the address.
func (g *Group) attach(filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	var err error
	ctl := g.sockets[0].raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog)
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// spread returns a filter that leads datagrams to the sockets with the given numbers by the ID of the query. It sees a
// datagram from its first byte of data. One that is shorter than an ID is led to the first socket of all.
func spread(at []int) []unix.SockFilter {
	f := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(at))},
	}
	for i, n := range at {
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(i), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(n)})
	}
	return append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(at[0])})
}

// toNumber returns a filter that leads datagrams with a token to the number that they name, and others as spread does; with
// nothing to spread to, as the kernel would.
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
		return append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1<<31 - 1})
	}
	return append(f, spread(at)...)
}
