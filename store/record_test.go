package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

var when = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// samples are objects of every kind, with every field of theirs set.
func samples() []link.Object {
	return []link.Object{
		&link.Network{
			ID: "corp/lan", Tenant: "a", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")},
			Facet: facet(),
			Pools: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}, ByListener: true,
			Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}}}, Egress: []string{"*"},
			Sites:  link.Sites{{Site: "paris", Prefix: netip.MustParsePrefix("10.1.0.0/17")}},
			Origin: link.Origin{Declaration: "host", File: "Corefile", Line: 3},
		},
		&link.Service{
			ID: "contoso-sql", Tenant: "b", Facet: facet(), Alias: "contoso-sql.00ff.postern",
			Names: []link.ResourceName{{Public: "contoso.database.windows.net", Private: "contoso.privatelink.database.windows.net", Zone: "privatelink.database.windows.net"}},
			Port:  1433, Targets: []link.Target{{Addr: netip.MustParseAddrPort("10.20.0.4:1433")}},
			TargetNames: []link.NamePort{{Name: "sql.internal.example", Port: 1433}}, Within: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
			Sites:   link.Sites{{Site: "lyon", Prefix: netip.MustParsePrefix("10.20.0.0/17")}},
			Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{"corp"}, Reject: []link.Party{"tenant/c"}, MaxConnections: 7, MaxPerConsumer: 3, Strict: true, ECHOuter: true, Protocol: link.UDP, Reach: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
			Pin: link.PinTLS, ProxyProtocol: link.ProxyAzure, NAT: []netip.Addr{netip.MustParseAddr("10.20.0.9")},
			IdleTimeout: time.Minute, FallbackPublic: true, Origin: link.Origin{Declaration: "host", File: "Corefile", Line: 9},
			Spread: link.Spread{
				Balance: link.LeastConnections, Weights: map[netip.AddrPort]int{netip.MustParseAddrPort("10.20.0.4:1433"): 0},
				Probe: link.Probe{Kind: link.ProbeHTTP, Path: "/up", Status: 204}, MaxPerTarget: 10, MaxWaiting: 20, Warm: 4, WarmAge: 20 * time.Second,
			},
		},
		&link.Endpoint{
			ID: "contoso-sql-corp", Tenant: "a", Network: "corp/lan", Service: "contoso-sql", Address: netip.MustParseAddr("10.200.0.5"),
			Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			Facet: facet(), Subnet: "pe", Zones: &link.ZoneGroup{Name: "default", Configs: []link.ZoneConfig{{Name: "a", Zone: "s/g/corp.internal"}}},
			Connection: link.Connection{
				LinkID: 0x210045C1, State: link.Approved, Decision: link.Decision{Actor: "eve", Reason: "<ok> & \u2028", At: when},
				Suspended: &link.Decision{Rule: "r", At: when}, Message: "please", RequestedAt: when, Asked: 2,
			},
			Origin: link.Origin{Declaration: "host", File: "Corefile", Line: 20},
		},
		&link.Retired{LinkID: 0xFFFFFFFF, At: when, Tenant: "t", Extra: facet().Extra},
		&link.PrivateZone{
			ID: "s/g/corp.internal", Tenant: "a", Facet: facet(), Name: "corp.internal",
			Links: []link.ZoneLink{{Name: "hub", Network: "corp/lan", Redirect: true, API: []byte(`{}`)}},
		},
		&link.RecordSet{Zone: "s/g/corp.internal", Type: "A", Name: "db", Facet: facet(), TTL: 10, Data: []string{"10.1.2.3"}},
		&link.Document{Type: "group", ID: "s/g", Tenant: "a", Facet: facet()},
	}
}

func facet() link.Facet {
	return link.Facet{UID: "00ff", API: []byte(`{"tags":{"a":"b"}}`), Extra: map[string]json.RawMessage{
		"aNewField": []byte(`{"x":[1,"\u003ca"]}`), "other": []byte(`null`),
	}}
}

func encode(t testing.TB, o link.Object) []byte {
	t.Helper()
	rec, err := EncodeRecord(o)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestSamplesAreFull(t *testing.T) {
	for _, o := range samples() {
		v := reflect.ValueOf(o).Elem()
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s.%s is zero: its loss would go unseen", o.Kind(), v.Type().Field(i).Name)
			}
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, o := range samples() {
		got, err := DecodeRecord(o.Kind(), o.Key(), encode(t, o))
		if err != nil {
			t.Errorf("%s: %v", o.Kind(), err)
		} else if !reflect.DeepEqual(got, o) {
			t.Errorf("%s: %+v, want %+v", o.Kind(), got, o)
		}
	}
}

// TestUnknownFieldsStay: what a newer version added to an object is there after this one read, changed and
// wrote it.
func TestUnknownFieldsStay(t *testing.T) {
	body := `{"id":"a","prefixes":["10.0.0.0/8"],"egressMode":{"b":[1,2]},"Pools":["10.200.0.0/24"]}`
	o, err := DecodeRecord(link.KindNetwork, "a", resealed(link.KindNetwork, "a", body))
	if err != nil {
		t.Fatal(err)
	}
	n := *o.(*link.Network)
	if len(n.Pools) != 1 || len(n.Extra) != 1 || string(n.Extra["egressMode"]) != `{"b":[1,2]}` {
		t.Fatalf("read as %+v", n)
	}
	n.Tenant = "b"
	want := `{"id":"a","tenant":"b","prefixes":["10.0.0.0/8"],"pools":["10.200.0.0/24"],"egressMode":{"b":[1,2]}}`
	if got := encode(t, &n)[recordHead:]; string(got) != want {
		t.Errorf("written as %s, want %s", got, want)
	}
	n.Extra = map[string]json.RawMessage{"tenant": []byte(`"evil"`)} // known by now
	if got := encode(t, &n)[recordHead:]; strings.Contains(string(got), "evil") {
		t.Errorf("a field that is known was written twice: %s", got)
	}
}

// resealed returns a record of the given body whose checksum is right.
func resealed(kind link.Kind, key, body string) []byte {
	sum := sumOf(kind, key, []byte(body))
	return append(append([]byte{RecordFormat}, sum[:]...), body...)
}

func TestRecordRefused(t *testing.T) {
	retired := &link.Retired{LinkID: 1, At: when}
	rec := encode(t, retired)
	newer := bytes.Clone(rec)
	newer[0]++
	for _, c := range []struct {
		name string
		kind link.Kind
		key  string
		rec  []byte
		want error
	}{
		{"empty", link.KindRetired, "00000001", nil, ErrDamaged},
		{"cut in its head", link.KindRetired, "00000001", rec[:9], ErrDamaged},
		{"cut in its body", link.KindRetired, "00000001", rec[:len(rec)-1], ErrDamaged},
		{"under another key", link.KindRetired, "00000002", rec, ErrDamaged},
		{"under another kind", link.KindNetwork, "00000001", rec, ErrDamaged},
		{"newer format", link.KindRetired, "00000001", newer, ErrForeign},
		{"unknown kind", "tunnel", "00000001", rec, ErrForeign},
		{"unknown field in a part", link.KindNetwork, "a", resealed(link.KindNetwork, "a", `{"id":"a","prefixes":["10.0.0.0/8"],"origin":{"new":1}}`), ErrForeign},
		{"unknown field in a part, and one of the object", link.KindNetwork, "a", resealed(link.KindNetwork, "a", `{"id":"a","new":1,"origin":{"new":1}}`), ErrForeign},
		{"unknown field and a wrong type", link.KindNetwork, "a", resealed(link.KindNetwork, "a", `{"id":"a","new":1,"prefixes":"10.0.0.0/8"}`), ErrForeign},
		{"unknown field and two values", link.KindRetired, "00000001", resealed(link.KindRetired, "00000001", `{"linkId":1,"new":1}{}`), ErrForeign},
		{"two values", link.KindRetired, "00000001", resealed(link.KindRetired, "00000001", `{"linkId":1}{}`), ErrDamaged},
		{"body of another key", link.KindRetired, "00000001", resealed(link.KindRetired, "00000001", `{"linkId":2}`), ErrDamaged},
		{"no JSON", link.KindRetired, "00000001", resealed(link.KindRetired, "00000001", `linkId`), ErrForeign},
	} {
		t.Run(c.name, func(t *testing.T) {
			if o, err := DecodeRecord(c.kind, c.key, c.rec); !errors.Is(err, c.want) || o != nil {
				t.Errorf("%v, %v; want %v", o, err, c.want)
			}
		})
	}
}

// S04 at the level of records: no single flipped bit gets through.
func TestRecordFlipped(t *testing.T) {
	for _, o := range samples() {
		rec := encode(t, o)
		for i := range len(rec) * 8 {
			rec[i/8] ^= 1 << (i % 8)
			if _, err := DecodeRecord(o.Kind(), o.Key(), rec); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
				t.Fatalf("%s: bit %d flipped: %v", o.Kind(), i, err)
			}
			rec[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestSet(t *testing.T) {
	var sums []Sum
	for _, o := range samples() {
		sum, err := RecordSum(encode(t, o))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	sums = append(sums, Sum(bytes.Repeat([]byte{0xFF}, 16))) // carries all the way
	var a, b Set
	for i := range sums {
		a.Add(sums[i])
		b.Add(sums[len(sums)-1-i])
	}
	if a != b {
		t.Error("the order of records matters")
	}
	text, err := a.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var c Set
	if err := c.UnmarshalText(text); err != nil || c != a {
		t.Errorf("%q became %v, %v", text, c, err)
	}
	a.Remove(sums[0])
	if a == b {
		t.Error("a record less makes no difference")
	}
	for _, sum := range sums[1:] {
		a.Remove(sum)
	}
	if a != (Set{}) {
		t.Errorf("what is left of nothing is %v", a)
	}
	for _, bad := range []string{"", "1", "1-", "1-00", "01-" + strings.Repeat("0", 32), "1-" + strings.Repeat("0", 33), "1-" + strings.Repeat("F", 32)} {
		if err := c.UnmarshalText([]byte(bad)); !errors.Is(err, ErrDamaged) {
			t.Errorf("set %q: %v", bad, err)
		}
	}
}

func TestChain(t *testing.T) {
	var lines [][]byte
	var entries []Entry
	var chain Chain
	for r := range uint64(4) {
		e := Entry{ID: NewID(), At: when, Actor: "eve", From: "f", Action: "a", Object: "o", Reason: "r"}
		if err := e.Describe(r+1, []link.Delta{{Kind: link.KindNetwork, Key: "x", New: &link.Network{}}}); err != nil {
			t.Fatal(err)
		}
		line, after, err := chain.Append(e)
		if err != nil {
			t.Fatal(err)
		}
		lines, entries, chain = append(lines, line), append(entries, e), after
	}
	read := func(lines [][]byte) ([]Entry, error) {
		var got []Entry
		var c Chain
		for i, l := range lines {
			e, after, err := c.Next(uint64(i+1), l)
			if err != nil {
				return got, err
			}
			got, c = append(got, e), after
		}
		return got, nil
	}
	if got, err := read(lines); err != nil || !reflect.DeepEqual(got, entries) {
		t.Errorf("%v, %v; want %v", got, err, entries)
	}
	if _, err := read([][]byte{lines[0], lines[2], lines[3]}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a line dropped: %v", err)
	}
	if _, err := read([][]byte{lines[1], lines[0]}); !errors.Is(err, ErrDamaged) {
		t.Errorf("lines swapped: %v", err)
	}
	for i := range len(lines[0]) * 8 {
		lines[0][i/8] ^= 1 << (i % 8)
		if _, err := read(lines); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Fatalf("bit %d flipped: %v", i, err)
		}
		lines[0][i/8] ^= 1 << (i % 8)
	}
}

// FuzzDecodeRecord: no bytes make the decoder panic, none that weren't made by the encoder pass the
// checksum, and what passes with a checksum of its own goes round.
func FuzzDecodeRecord(f *testing.F) {
	for _, o := range samples() {
		rec := encode(f, o)
		f.Add(string(o.Kind()), o.Key(), rec)
		f.Add(string(o.Kind()), o.Key(), rec[recordHead:])
	}
	f.Add("retired", "00000001", []byte(`{"linkId":1,"at":"2026-01-02T03:04:05+01:00"}`))
	f.Fuzz(func(t *testing.T, kind, key string, data []byte) {
		_, err := DecodeRecord(link.Kind(kind), key, data)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Fatalf("an error of no class: %v", err)
		}
		o, err := DecodeRecord(link.Kind(kind), key, resealed(link.Kind(kind), key, string(data)))
		if err != nil {
			return
		}
		once := encode(t, o)
		again, err := DecodeRecord(o.Kind(), o.Key(), once)
		if err != nil {
			t.Fatalf("our own record %s is refused: %v", once[recordHead:], err)
		}
		if twice := encode(t, again); !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s", once[recordHead:], twice[recordHead:])
		}
		if !json.Valid(once[recordHead:]) {
			t.Fatalf("body %q", once[recordHead:])
		}
	})
}
