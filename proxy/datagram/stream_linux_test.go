package datagram

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTrains: whatever goes into a sender comes out datagram by datagram, in order, none joined and none cut.
func TestTrains(t *testing.T) {
	const seed = 27
	r := rand.New(rand.NewPCG(seed, seed))
	target := socket(t, "127.0.0.1")
	conn := client(t, local(target))
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s := new(sender)
	s.init()
	got := make([]byte, 64<<10)
	trains := 0
	for round := range 2000 {
		var head []byte
		if r.IntN(3) == 0 {
			head = bytes.Repeat([]byte("h"), 1+r.IntN(90))
		}
		var want [][]byte
		var all []message
		size, total := 0, 0
		for range 1 + r.IntN(received) {
			if r.IntN(3) == 0 {
				size = r.IntN(1400)
			}
			m := message{data: make([]byte, size)}
			if size > 0 && r.IntN(4) == 0 { // as the kernel puts them together
				m.segment = size
				m.data = make([]byte, size*(1+r.IntN(7))+r.IntN(size))
				if len(m.data) <= size {
					m.segment = 0
				}
			}
			if total += len(m.data) + (m.count()+1)*1000; total > 120_000 { // the receiver's buffer counts more than bytes
				break
			}
			for i := range m.data {
				m.data[i] = byte(r.Uint32())
			}
			for data := m.data; ; data = data[m.segment:] {
				if m.segment == 0 || len(data) <= m.segment {
					want = append(want, append(bytes.Clone(head), data...))
					break
				}
				want = append(want, append(bytes.Clone(head), data[:m.segment]...))
			}
			all = append(all, m)
		}
		raw.Control(func(fd uintptr) {
			s.begin(int(fd), nil, 0, netip.Addr{}, head, r.IntN(8) == 0)
			for i := range all {
				s.add(&all[i])
			}
			trains += s.n
			if r.IntN(8) == 0 { // as if the network card refused
				for i := range s.trains[:s.n] {
					s.apart(&s.trains[i])
				}
			} else {
				s.flush()
			}
		})
		if s.err != nil || s.dropped != [drops]int{} {
			t.Fatalf("round %d: dropped %v, %v", round, s.dropped, s.err)
		}
		payload := 0
		for i := range want {
			payload += len(want[i]) - len(head)
			if n, err := target.Read(got); err != nil || !bytes.Equal(got[:n], want[i]) {
				t.Fatalf("seed %d, round %d, datagram %d of %d: %d bytes, want %d: %v", seed, round, i, len(want), n, len(want[i]), err)
			}
		}
		if s.bytes != payload || s.datagrams != len(want) {
			t.Fatalf("round %d: %d bytes in %d datagrams are counted, want %d in %d", round, s.bytes, s.datagrams, payload, len(want))
		}
	}
	if trains == 0 {
		t.Error("there was no train")
	}
}

// TestStream: a million numbered datagrams of all sizes go through and come back, none lost, doubled, joined, cut or
// changed, in trains and alone. The client sends on when the last ones are back, so that no buffer has to overflow.
func TestStream(t *testing.T) {
	all := 1_000_000
	if raceEnabled || testing.Short() {
		all = 50_000
	}
	w := newWorld(t, echo(t, "127.0.0.1"))
	c := client(t, w.listen("127.77.0.5:0").Addr())
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	r := rand.New(rand.NewPCG(1, 27))
	s, b := new(sender), batches.Get().(*batch)
	s.init()
	var buf [64][1400]byte
	next, sum := 0, uint32(0)
	for sent := 0; sent < all; {
		n := min(1+r.IntN(64), all-sent)
		raw.Control(func(fd uintptr) { s.begin(int(fd), nil, 0, netip.Addr{}, nil, r.IntN(2) == 0) })
		size := 14 + r.IntN(1386)
		window := 0
		for i := range n {
			if r.IntN(8) == 0 {
				size = 14 + r.IntN(1386)
			}
			if window += size + 1000; window > 100_000 {
				n = i
				break
			}
			d := buf[i][:size]
			binary.BigEndian.PutUint64(d, uint64(sent+i))
			d[8], d[size-5] = byte(i), byte(size)
			binary.BigEndian.PutUint32(d[size-4:], crc32.ChecksumIEEE(d[:size-4]))
			s.add(&message{data: d})
		}
		raw.Control(s.flushes)
		if s.datagrams != n {
			t.Fatalf("%d of %d were sent: %v", s.datagrams, n, s.err)
		}
		sent += n
		c.SetDeadline(time.Now().Add(patience))
		for next < sent {
			if err := raw.Read(func(fd uintptr) bool { return b.receive(int(fd), false) != unix.EAGAIN }); err != nil {
				t.Fatalf("%d of %d are back: %v", next, sent, err)
			}
			for i := range b.n {
				m, ok := b.message(i, false, true)
				if !ok {
					t.Fatal("malformed")
				}
				for data := m.data; len(data) > 0; {
					d := data
					if m.segment > 0 {
						d = data[:min(m.segment, len(data))]
					}
					data = data[len(d):]
					if crc32.ChecksumIEEE(d[:len(d)-4]) != binary.BigEndian.Uint32(d[len(d)-4:]) || binary.BigEndian.Uint64(d) != uint64(next) {
						t.Fatalf("datagram %d of %d came back as number %d, whole: %v", next, sent, binary.BigEndian.Uint64(d), crc32.ChecksumIEEE(d[:len(d)-4]) == binary.BigEndian.Uint32(d[len(d)-4:]))
					}
					sum = crc32.Update(sum, crc32.IEEETable, d)
					next++
				}
			}
		}
	}
	batches.Put(b)
	counts := w.relay.Counts
	if next != all || w.count() != 1 {
		t.Errorf("%d back, of %d; %d flows", next, all, w.count())
	}
	// What is sent is counted after it, and may be back before.
	eventually(t, "the last ones are counted", func() bool { return counts.ToTarget.Load() == int64(all) && counts.ToClient.Load() == int64(all) })
	t.Logf("%d datagrams, checksum of all %08x", all, sum)
}

// TestManyClients: as many flows as sockets, each gets its own answers.
func TestManyClients(t *testing.T) {
	w := newWorld(t, echo(t, "127.0.0.1"))
	to := w.listen("127.77.0.5:0").Addr()
	var conns []*net.UDPConn
	for range 300 {
		conns = append(conns, client(t, to))
	}
	b := make([]byte, 64)
	for round := range 5 {
		for at := 0; at < len(conns); at += 50 {
			for i, c := range conns[at : at+50] {
				c.Write(binary.BigEndian.AppendUint32(nil, uint32(round<<16|at+i)))
			}
			for i, c := range conns[at : at+50] {
				if n, err := c.Read(b); err != nil || binary.BigEndian.Uint32(b[:n]) != uint32(round<<16|at+i) {
					t.Fatalf("client %d: % x, %v", at+i, b[:n], err)
				}
			}
		}
	}
	if w.count() != len(conns) {
		t.Errorf("%d flows of %d clients", w.count(), len(conns))
	}
}
