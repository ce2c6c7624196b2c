package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// client is who asks in these tests.
var client = netip.MustParseAddr("127.0.0.1")

// TestStill: an answer is given in another moment where it would be made so again, with the serial of that; where it wouldn't, or
// nobody can say, it isn't. It is asked once in a moment.
func TestStill(t *testing.T) {
	t.Parallel()
	soa, err := dns.NewRR("example. 10 IN SOA a. b. 7 3600 1200 604800 10")
	if err != nil {
		t.Fatal(err)
	}
	other, err := dns.NewRR("other.example. 10 IN SOA a. b. 8 3600 1200 604800 10")
	if err != nil {
		t.Fatal(err)
	}
	query := wire(t, "a.example.", nil)
	asked := 0
	for _, tc := range []struct {
		name  string
		still func(*Moment) bool
		found bool
	}{
		{"nobody can say", nil, false},
		{"made of something else", func(*Moment) bool { asked++; return false }, false},
		{"made so again", func(m *Moment) bool { asked++; return m.Epoch != 9 }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newPlugins()
			target := NewTarget(b)
			begin := func(epoch uint64, serial uint32) *Moment {
				m := &Moment{Epoch: epoch, Serial: serial}
				b.moment.Store(m)
				return m
			}
			m := begin(3, 7)
			r := new(dns.Msg)
			if err := r.Unpack(query); err != nil {
				t.Fatal(err)
			}
			r.SetReply(r)
			r.Ns = []dns.RR{soa, other}
			answer, err := r.Pack()
			if err != nil {
				t.Fatal(err)
			}
			target.keep(query, answer, &Answer{Epoch: 3, Serial: 7, View: "view", Still: tc.still}, false)
			given := func(m *Moment) []byte {
				e, n, _ := target.find(nil, m, client, query)
				if e == nil {
					return nil
				}
				return e.appendTo(nil, query, n, m)
			}
			if !bytes.Equal(given(m), answer) {
				t.Fatal("not found in its own moment")
			}
			asked = 0
			next := begin(4, 1<<31+5)
			for range 3 {
				got := given(next)
				if (got != nil) != tc.found {
					t.Fatalf("found in another moment: %v", got != nil)
				}
				if got == nil {
					continue
				}
				var is dns.Msg
				if err := is.Unpack(got); err != nil {
					t.Fatal(err)
				}
				if a, b := is.Ns[0].(*dns.SOA).Serial, is.Ns[1].(*dns.SOA).Serial; a != 1<<31+5 || b != 8 {
					t.Errorf("serials %d and %d", a, b)
				}
			}
			if tc.found && asked != 1 {
				t.Errorf("asked %d times", asked)
			}
			if tc.found && (given(m) == nil || given(begin(9, 9)) != nil || given(begin(10, 9)) == nil) {
				t.Error("what is so in one moment is said of another")
			}
		})
	}
}

// TestKeepLate: an answer whose moment is over is kept if it would be made so in that of now, and takes the place of none if not.
func TestKeepLate(t *testing.T) {
	t.Parallel()
	b := newPlugins()
	target := NewTarget(b)
	b.moment.Store(&Moment{Epoch: 5})
	query := wire(t, "a.example.", nil)
	r := new(dns.Msg)
	if err := r.Unpack(query); err != nil {
		t.Fatal(err)
	}
	r.SetReply(r)
	answer, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	found := func() bool {
		e, _, _ := target.find(nil, b.Now(), client, query)
		return e != nil
	}
	for _, a := range []*Answer{{Epoch: 4, View: "view"}, {View: "view"}, {Epoch: 4, View: "view", Still: func(*Moment) bool { return false }}} {
		if target.keep(query, answer, a, false); found() {
			t.Fatalf("an answer of the past is kept: %+v", a)
		}
	}
	if target.keep(query, answer, &Answer{View: "view", Still: func(*Moment) bool { return true }}, false); !found() {
		t.Fatal("an answer that holds isn't kept")
	}
	target.keep(query, answer, &Answer{Epoch: 4, View: "view", Still: func(*Moment) bool { return false }}, false)
	if !found() {
		t.Fatal("an answer of the past takes the place of one of today")
	}
}

// TestTablePast: answers of another moment that hold keep their places as those of this one do, and those that don't give theirs up.
func TestTablePast(t *testing.T) {
	t.Parallel()
	var table Table
	put := func(i int, epoch uint64, still, loose bool) {
		table.put(&entry{key: fmt.Sprint(i), answer: &Answer{Epoch: epoch, Loose: loose, Still: func(*Moment) bool { return still }}}, &Moment{Epoch: epoch}, room(0))
	}
	count := func(from, to int, m *Moment) (n int) {
		for i := from; i < to; i++ {
			if table.get([]byte(fmt.Sprint(i)), m) != nil {
				n++
			}
		}
		return n
	}
	for i := range 6000 {
		put(i, 1, i < 3000, false)
	}
	now := &Moment{Epoch: 2}
	before := count(0, 6000, now)
	if before < 2500 || count(3000, 6000, now) != 0 {
		t.Fatalf("%d of 3,000 answers hold", before)
	}
	for i := range 20_000 {
		put(10_000+i, 2, true, true)
	}
	if after := count(0, 3000, now); after != before {
		t.Errorf("loose answers have taken the places of %d that hold", before-after)
	}
	size := len(*table.sets.Load())
	for i := range 3000 {
		put(100_000+i, 2, true, false)
	}
	if n := count(100_000, 103_000, now); n < 2500 {
		t.Errorf("%d of 3,000 answers found a place", n)
	}
	if after := count(0, 3000, now); after < before*8/10 {
		t.Errorf("%d of %d answers that hold are left, in %d sets and then %d", after, before, size, len(*table.sets.Load()))
	}
}

// FuzzSerials: whatever bytes an answer has, what is changed in it lies within its SOA records.
func FuzzSerials(f *testing.F) {
	m := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "example.", Mbox: "nobody.invalid.", Serial: 7}}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint16(27), uint32(7))
	f.Fuzz(func(t *testing.T, b []byte, off uint16, serial uint32) {
		if len(b) < headerSize || int(off) < headerSize {
			return // keep has seen to it
		}
		at, ok := serials(b, int(off), serial)
		if !ok {
			return
		}
		for _, in := range at {
			if in < int(off) || in+20 > len(b) || binary.BigEndian.Uint32(b[in:]) != serial {
				t.Fatalf("%x: %d of %d", b, in, len(b))
			}
		}
	})
}
