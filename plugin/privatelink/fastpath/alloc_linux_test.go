package fastpath

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// desk is a socket without a network: datagrams are laid before it, and what it answers is looked at.
type desk struct {
	*socket
	target *Target
}

func newDesk() *desk {
	t := NewTarget(newPlugins())
	t.Answered = prometheus.NewCounter(prometheus.CounterOpts{Name: "answered"})
	size := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "size"})
	t.Requests, t.Responses, t.Duration = size, size, size
	d := &desk{&socket{group: new(Group), ring: newRing(true)}, t}
	from := (*unix.RawSockaddrInet4)(unsafe.Pointer(&d.ring.from[0]))
	from.Family, from.Addr = unix.AF_INET, [4]byte{127, 0, 0, 1}
	return d
}

// lay puts a query before the socket.
func (d *desk) lay(query []byte) {
	d.ring.in[0].Size = uint32(copy(d.ring.query[0][:], query))
}

// answered reports whether the socket knows the answer to what lies before it, and counts it.
func (d *desk) answered() bool {
	began := d.tally.start(d.target)
	known, _ := d.answer(d.target, d.target.Backend.Now(), 0, d.ring.datagram(0))
	d.ring.drop()
	d.tally.end(d.target, began)
	return known
}

// learn puts an answer with records into the table.
func (d *desk) learn(t testing.TB, query []byte, rcode int, counts []prometheus.Counter, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		t.Fatal(err)
	}
	r := new(dns.Msg).SetRcode(m, rcode)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if r.Answer = append(r.Answer, rr); rr.Header().Rrtype == dns.TypeSOA {
			r.Ns, r.Answer = r.Answer, nil
		}
	}
	if m.IsEdns0() != nil {
		r.SetEdns0(maxWire, true)
	}
	wire, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	d.target.keep(query, wire, &Answer{Epoch: d.target.Backend.Now().Epoch, View: "view", Counts: counts, Size: float64(len(wire)),
		Holds: func() bool { return true }}, false)
	return wire
}

// TestAllocations: an answer from the table allocates nothing, from the datagram to the counters.
func TestAllocations(t *testing.T) {
	counts := []prometheus.Counter{prometheus.NewCounter(prometheus.CounterOpts{Name: "one"}), prometheus.NewCounter(prometheus.CounterOpts{Name: "two"})}
	cookie := with(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
	const public, private = "contoso.database.windows.net.", "contoso.privatelink.database.windows.net."
	soa := "privatelink.database.windows.net. 10 IN SOA a. b. 1 3600 1200 604800 10"
	for _, tc := range []struct {
		name, ask string
		change    func(*dns.Msg)
		rcode     int
		records   []string
	}{
		{"an address", private, nil, dns.RcodeSuccess, []string{private + " 10 IN A 10.200.0.5"}},
		{"an alias and its address", public, nil, dns.RcodeSuccess, []string{public + " 10 IN CNAME " + private, private + " 10 IN A 10.200.0.5"}},
		{"EDNS with a cookie", public, cookie, dns.RcodeSuccess, []string{public + " 10 IN CNAME " + private, private + " 10 IN A 10.200.0.5"}},
		{"mixed case", "cOntoso.Database.windows.net.", nil, dns.RcodeSuccess, []string{"cOntoso.Database.windows.net. 10 IN A 10.200.0.5"}},
		{"NXDOMAIN", "nobody.privatelink.database.windows.net.", cookie, dns.RcodeNameError, []string{soa}},
		{"no data", private, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT }, dns.RcodeSuccess, []string{soa}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDesk()
			query := wire(t, tc.ask, tc.change)
			want := d.learn(t, query, tc.rcode, counts, tc.records...)
			d.lay(query)
			n := testing.AllocsPerRun(1000, func() {
				if !d.answered() {
					t.Fatal("not found")
				}
			})
			if got := unsafe.Slice(d.ring.vec[0].Base, d.ring.vec[0].Len); n != 0 || !bytes.Equal(got, want) {
				t.Errorf("%v allocations, answer %x, want %x", n, got, want)
			}
		})
	}
}

// TestAllocationsOfBatches: nor do the system calls that take queries and send answers: on one address and on all, for clients with many queries in a batch and with one, and for answers of many sizes.
func TestAllocationsOfBatches(t *testing.T) {
	for _, bind := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		t.Run(bind, func(t *testing.T) {
			conn, err := listen(netip.AddrPortFrom(netip.MustParseAddr(bind), 0))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			target := newDesk().target
			g := &Group{addr: at}
			g.target.Store(target)
			s, err := newSocket(g, conn)
			if err != nil {
				t.Fatal(err)
			}
			to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
			queries := [...]int{batch, batch - 8, 1, 1, 1, 1, 1, 1, 1, 1} // of each client: two batches
			clients := make([]*burst, len(queries))
			counts := []prometheus.Counter{prometheus.NewCounter(prometheus.CounterOpts{Name: "one"})}
			for i := range clients {
				clients[i] = newBurst(t, to)
			}
			d := &desk{s, target}
			for i, query := range clients[0].b {
				var records []string
				for range i%4 + 1 {
					records = append(records, "a. 10 IN A 10.200.0.5")
				}
				d.learn(t, query, dns.RcodeSuccess, counts, records...)
			}
			answered := new(sum)
			target.Answered = answered
			var want float64
			read := func(fd uintptr) bool {
				s.serve(fd)
				return answered.n == want // what was sent may not be there yet
			}
			round := func() {
				for i, c := range clients {
					c.ask(queries[i])
					want += float64(queries[i])
				}
				if err := s.raw.Read(read); err != nil {
					t.Fatal(err)
				}
				for i, c := range clients {
					c.take(t, queries[i])
				}
			}
			round() // makes room for the counters
			if n := testing.AllocsPerRun(100, round); n != 0 {
				t.Errorf("%v allocations in a round", n)
			}
			if s.work.open > 0 {
				t.Errorf("the plugins have %d queries", s.work.open)
			}
		})
	}
}

// sum is a counter that can be read without an allocation.
type sum struct {
	prometheus.Counter
	n float64
}

func (c *sum) Add(n float64) { c.n += n }

// BenchmarkAnswer is one answer from the table, without the system calls: the names are asked in turn.
func BenchmarkAnswer(b *testing.B) {
	for _, names := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(names), func(b *testing.B) {
			d := newDesk()
			backend := d.target.Backend.(*plugins)
			backend.moment.Store(&Moment{Epoch: 1, Names: names})
			queries := make([][]byte, names)
			for i := range queries {
				queries[i] = wire(b, fmt.Sprintf("n%06d.privatelink.database.windows.net.", i), with())
			}
			found := func() (n int) {
				for _, q := range queries {
					if d.lay(q); d.answered() {
						n++
					} else {
						d.learn(b, q, dns.RcodeSuccess, nil, "a. 10 IN A 10.200.0.5")
					}
				}
				return n
			}
			for range 20 { // the table grows when places are short
				if found() == names {
					break
				}
			}
			b.ReportAllocs()
			missed, i := 0, 0
			for b.Loop() {
				if d.lay(queries[i]); !d.answered() {
					missed++
				}
				if i++; i == names {
					i = 0
				}
			}
			b.ReportMetric(float64(missed)/float64(b.N), "misses/op")
		})
	}
}

// TestZone: the interface of a client on a link isn't lost, though it has no name any more.
func TestZone(t *testing.T) {
	t.Parallel()
	r := newRing(false)
	r.from[0] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: [16]byte{0: 0xfe, 1: 0x80, 15: 9}, Scope_id: 1 << 24}
	if a := r.udpAddr(0); a.Zone != "16777216" {
		t.Errorf("%v", &a)
	}
}
