package fastpath

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
)

// wire packs a query after it was changed.
func wire(t testing.TB, name string, change func(m *dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Id = 0x1234
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func with(options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = options
	}
}

// TestParse: what is one plain question, and what is left to the plugins.
func TestParse(t *testing.T) {
	t.Parallel()
	cut := func(b []byte, n int) []byte { return b[:len(b)-n] }
	edit := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	plain := wire(t, "a.example.", nil)
	for _, tc := range []struct {
		name  string
		query []byte
		want  bool
	}{
		{"plain", plain, true},
		{"root", wire(t, ".", nil), true},
		{"EDNS", wire(t, "a.example.", with()), true},
		{"cookie, NSID, padding", wire(t, "a.example.", with(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
			&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_PADDING{Padding: make([]byte, 20)})), true},
		{"client subnet", wire(t, "a.example.", with(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 20, Address: []byte{10, 1, 16, 0}})), true},
		{"an option that nobody knows", wire(t, "a.example.", with(&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}})), false},
		{"TCP keepalive", wire(t, "a.example.", with(&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})), false},
		{"D01 empty", nil, false},
		{"D01 eleven bytes", plain[:11], false},
		{"D02 ends after the header", plain[:12], false},
		{"D03 no question", edit(bytes.Clone(plain), 5, 0), false},
		{"D03 two questions", edit(bytes.Clone(plain), 5, 2), false},
		{"D04 response", edit(bytes.Clone(plain), 2, 0x81), false},
		{"D05 update", edit(bytes.Clone(plain), 2, 5<<3), false},
		{"D05 unassigned opcode", edit(bytes.Clone(plain), 2, 15<<3), false},
		{"D06 pointer to itself", edit(edit(bytes.Clone(plain), 12, 0xc0), 13, 12), false},
		{"D06 label of 64", edit(bytes.Clone(plain), 12, 64), false},
		{"D09 EDNS version 1", wire(t, "a.example.", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), false},
		{"EDNS of 511 bytes", wire(t, "a.example.", func(m *dns.Msg) { m.SetEdns0(511, false) }), false},
		{"an unassigned flag of EDNS", wire(t, "a.example.", func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().Hdr.Ttl |= 1 }), false},
		{"TC", wire(t, "a.example.", func(m *dns.Msg) { m.Truncated = true }), false},
		{"RD, AD and CD", wire(t, "a.example.", func(m *dns.Msg) { m.AuthenticatedData, m.CheckingDisabled = true, true }), true},
		{"D10 AXFR", wire(t, "a.example.", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), false},
		{"D21 junk behind it", append(bytes.Clone(plain), make([]byte, 400)...), false},
		{"class CH", wire(t, "a.example.", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), false},
		{"an answer in the query", wire(t, "a.example.", func(m *dns.Msg) { m.Answer = []dns.RR{&dns.NULL{Hdr: dns.RR_Header{Name: "."}}} }), false},
		{"two additional records", edit(wire(t, "a.example.", with()), 11, 2), false},
		{"OPT cut", cut(wire(t, "a.example.", with()), 1), false},
		{"type cut", cut(bytes.Clone(plain), 3), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, n, ok := new(Target).parse(nil, tc.query)
			if ok != tc.want {
				t.Errorf("taken %v, want %v", ok, tc.want)
			}
			if ok && tc.name != "root" && n != len("\x01a\x07example\x00") {
				t.Errorf("name of %d bytes", n)
			}
		})
	}
	for _, long := range []struct {
		labels int
		want   bool
	}{{3, true}, {4, false}} { // of 63 bytes: 193 and 257 bytes
		var b []byte
		b = append(b, plain[:12]...)
		for range long.labels {
			b = append(append(b, 63), bytes.Repeat([]byte{'x'}, 63)...)
		}
		if _, _, ok := new(Target).parse(nil, append(b, 0, 0, 1, 0, 1)); ok != long.want {
			t.Errorf("D06 %d labels of 63 bytes: taken %v", long.labels, ok)
		}
	}
}

// FuzzParse: what is taken here is what CoreDNS's parser reads as one plain question, and what has one key has one
// meaning there but for ID, spelling and options.
func FuzzParse(f *testing.F) {
	f.Add(wire(f, "a.example.", nil), wire(f, "A.eXample.", nil))
	f.Add(wire(f, "a.example.", with()), wire(f, "a.example.", with(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})))
	f.Add(wire(f, "a.example.", with(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 56, Address: make([]byte, 16)})), wire(f, ".", nil))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		target := new(Target)
		key, n, ok := target.parse(nil, a)
		if !ok {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(a); err != nil {
			t.Fatalf("%x is taken, and no message: %v", a, err)
		}
		q := m.Question[0]
		var packed [256]byte
		off, err := dns.PackDomainName(q.Name, packed[:], 0, nil, false)
		switch {
		case m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || len(m.Answer)+len(m.Ns) != 0 || len(m.Extra) > 1:
			t.Fatalf("%x is taken as %v", a, m)
		case q.Qclass != dns.ClassINET || err != nil || !bytes.Equal(packed[:off], a[headerSize:headerSize+n]):
			t.Fatalf("%x is taken with another question than %v", a, q)
		case len(m.Extra) == 1 && (m.IsEdns0() == nil || m.IsEdns0().Version() != 0):
			t.Fatalf("%x is taken with %v", a, m.Extra)
		}
		other, _, ok := target.parse(nil, b)
		if !ok || !bytes.Equal(key, other) {
			return
		}
		plain := func(b []byte) string {
			m := new(dns.Msg)
			if err := m.Unpack(b); err != nil {
				t.Fatal(err)
			}
			m.Id = 0
			m.Question[0].Name = dns.CanonicalName(m.Question[0].Name)
			if opt := m.IsEdns0(); opt != nil {
				opt.Option = nil
				opt.SetUDPSize(min(opt.UDPSize(), maxWire))
			}
			return m.String()
		}
		if plain(a) != plain(b) {
			t.Fatalf("%x and %x have one key", a, b)
		}
	})
}

// FuzzSpellings: an answer that can be given again for another spelling is the same message for it.
func FuzzSpellings(f *testing.F) {
	m := new(dns.Msg).SetQuestion("A.example.", dns.TypeA)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "A.example.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{10, 0, 0, 1}}}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := []byte("\x01A\x07example\x00")
		at, ok := spellings(q, b)
		if !ok {
			return
		}
		e := &entry{wire: b, spelt: at}
		query := append(make([]byte, headerSize), "\x01a\x07eXample\x00"...)
		got := e.appendTo(nil, query, len(q), new(Moment))
		if len(got) != len(b) || bytes.Contains(got, q) {
			t.Fatalf("%x became %x", b, got)
		}
	})
}

// TestTable: one moment's answers aren't found in another, and memory is bounded whatever is asked.
func TestTable(t *testing.T) {
	t.Parallel()
	var table Table
	put := func(key string, epoch uint64, loose bool) {
		table.put(&entry{key: key, answer: &Answer{Epoch: epoch, Loose: loose}}, &Moment{Epoch: epoch}, room(0))
	}
	put("a", 1, false)
	if table.get([]byte("a"), &Moment{Epoch: 1}) == nil || table.get([]byte("a"), &Moment{Epoch: 2}) != nil || table.get([]byte("b"), &Moment{Epoch: 1}) != nil {
		t.Fatal("not the answers of the moment")
	}
	name := func(i int) string { return string([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) }
	for i := range 20_000 {
		put(name(i), 2, false)
	}
	found := 0
	for i := range 20_000 {
		if table.get([]byte(name(i)), &Moment{Epoch: 2}) != nil {
			found++
		}
	}
	if found < 16_000 {
		t.Errorf("%d of 20,000 answers are found", found)
	}
	for i := range 20_000 {
		put("loose"+name(i), 2, true)
	}
	kept := 0
	for i := range 20_000 {
		if table.get([]byte(name(i)), &Moment{Epoch: 2}) != nil {
			kept++
		}
	}
	if kept != found {
		t.Errorf("names that nobody knows of have taken %d places", found-kept)
	}
	if n := len(*table.sets.Load()); n > maxSets {
		t.Errorf("%d sets", n)
	}
}

// TestTableBytes: long answers are bounded by their bytes, and loose ones make no room at the cost of others.
func TestTableBytes(t *testing.T) {
	t.Parallel()
	var table Table
	wire := make([]byte, maxWire) // one for all: it is counted for each
	put := func(prefix byte, i int, epoch uint64, loose bool) {
		table.put(&entry{key: string([]byte{prefix, byte(i), byte(i >> 8), byte(i >> 16)}), wire: wire, answer: &Answer{Epoch: epoch, Loose: loose}}, &Moment{Epoch: epoch}, room(0))
	}
	held := func(prefix byte) (n, bytes int) {
		sets := *table.sets.Load()
		for s := range sets {
			for i := range sets[s] {
				if e := sets[s][i].Load(); e != nil {
					bytes += e.size()
					if e.key[0] == prefix {
						n++
					}
				}
			}
		}
		return n, bytes
	}
	check := func(what string) {
		t.Helper()
		if _, bytes := held(0); bytes != table.bytes || bytes > leastBytes {
			t.Fatalf("%s: %d bytes are held, %d are counted, %d are the most", what, bytes, table.bytes, leastBytes)
		}
	}
	for i := range 15_000 {
		put('a', i, 1, false)
	}
	before, _ := held('a')
	for i := range 40_000 {
		put('l', i, 1, true)
	}
	check("loose")
	if after, _ := held('a'); after != before {
		t.Errorf("loose answers have taken the room of %d others", before-after)
	}
	for i := range 100_000 {
		put('b', i, 1, false)
	}
	check("many")
	put('c', 0, 1, false)
	if table.get([]byte{'c', 0, 0, 0}, &Moment{Epoch: 1}) == nil {
		t.Error("nothing is kept any more")
	}
	for i := range 40_000 {
		put('d', i, 2, true)
	}
	check("another moment")
	if n, _ := held('d'); n == 0 {
		t.Error("answers of the past keep out those of today")
	}
}

// TestSizes: one name has few entries for the EDNS sizes that resolvers send; the others are loose.
func TestSizes(t *testing.T) {
	t.Parallel()
	keys := make(map[string]bool)
	for size := sizeLeast; size <= 1<<16-1; size += 4 {
		query := wire(t, "a.example.", func(m *dns.Msg) { m.SetEdns0(uint16(size), false) })
		key, _, ok := new(Target).parse(nil, query)
		if !ok {
			t.Fatalf("size %d isn't taken", size)
		}
		if !unusual(key) {
			keys[string(key)] = true
		}
	}
	if len(keys) != 3 {
		t.Errorf("%d entries", len(keys))
	}
}
