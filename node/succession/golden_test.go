package succession

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node/confine"
)

// recorded is what the messages of testdata/protocol-2.jsonl say, which were written down as protocol 2 had them first.
var recorded = []Message{
	{Kind: Sockets, Sockets: []Socket{
		{Network: "udp", Addr: netip.MustParseAddrPort("127.0.0.1:53"), Shared: true, Apart: true, Place: 3},
		{Network: "tcp", Addr: netip.MustParseAddrPort("[::1]:443")},
		{Network: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:5000")},
	}},
	{Kind: Begin, Protocol: 2, Version: "0.9.0", Notify: true, Sandbox: []confine.Rules{{Read: []string{"/etc"}, Write: []string{"/var/lib/postern"}}}},
	{Kind: Claim},
	{Kind: Granted},
	{Kind: Refused, Why: "a backup is under way"},
	{Kind: Ready, Hands: 1},
	{Kind: Failed, Why: "the state can't be reached"},
	{Kind: Flows, Flows: []Flow{
		{
			ID: "00112233445566778899aabbccddeeff", State: "established", Endpoint: "e", Service: "app", LinkID: 7,
			Source: netip.MustParseAddrPort("127.0.0.1:40000"), Local: netip.MustParseAddrPort("127.0.98.5:443"), Target: netip.MustParseAddrPort("127.0.0.1:8443"),
			Name: "app.example.com", Started: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), ToTarget: 5, ToClient: 6,
			Judged: true, For: "app", ForLink: 7, StandsAt: netip.MustParseAddrPort("127.0.0.1:8443"), FoundBy: []link.NamePort{{Name: "b.example.net", Port: 8443}},
		},
		{
			ID: "0f", State: "deciding", Source: netip.MustParseAddrPort("[2001:db8::1]:40001"), Local: netip.MustParseAddrPort("[2001:db8::2]:443"),
			Started: time.Date(2026, 11, 22, 10, 0, 1, 0, time.UTC), ECH: true, Waits: true, Unread: true,
		},
	}},
	{Kind: Gone, IDs: []string{"0f"}},
	{Kind: Elder},
	{Kind: Cut, IDs: []string{"00112233445566778899aabbccddeeff", "0f"}},
	{Kind: Sync},
	{Kind: Hand, Handed: []Handed{{
		Flow: Flow{
			ID: "aa", State: "established", Endpoint: "d", Service: "dg", LinkID: 9,
			Source: netip.MustParseAddrPort("127.0.0.1:40002"), Local: netip.MustParseAddrPort("127.0.98.7:5000"), Target: netip.MustParseAddrPort("127.0.0.1:5001"),
			Started: time.Date(2026, 11, 22, 10, 0, 2, 0, time.UTC), ToTarget: 1, ToClient: 2, For: "dg", ForLink: 9, StandsAt: netip.MustParseAddrPort("127.0.0.1:5001"),
		},
		Age: time.Second, Quiet: 2, Observed: []string{"p/trial"},
	}}},
	{Kind: Settled},
}

// TestRecorded (P13): what a process of an older version says is understood, and what is said to it is what it understands: as long as [Protocol] is
// the same, a field may come but none may change. Where this test must be changed, Protocol must be another number.
func TestRecorded(t *testing.T) {
	f, err := os.Open("testdata/protocol-2.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if Protocol != 2 {
		t.Fatal("messages of this protocol are to be written down")
	}
	i := 0
	for lines := bufio.NewScanner(f); lines.Scan(); i++ {
		if i == len(recorded) {
			t.Fatal("there are more messages than are known")
		}
		m, err := decode(lines.Bytes())
		if err != nil || !reflect.DeepEqual(m, recorded[i]) {
			t.Errorf("%s\nsays %+v, %v\nwant %+v", lines.Bytes(), m, err, recorded[i])
		}
		if text, err := json.Marshal(recorded[i]); err != nil || string(text) != lines.Text() {
			t.Errorf("%s, %v\nwant %s", text, err, lines.Bytes())
		}
	}
	if i != len(recorded) {
		t.Errorf("%d messages, want %d", i, len(recorded))
	}
}

// TestLaterVersion: what a later version says beside is left out.
func TestLaterVersion(t *testing.T) {
	m, err := decode([]byte(`{"kind":"ready","hands":2,"later":{"a":[1]},"flows":[{"id":"1","source":"127.0.0.1:1","local":"127.0.0.1:2","target":"","started":"2026-11-22T10:00:00Z","standsAt":"","later":1}]}`))
	if err != nil || m.Kind != Ready || m.Hands != 2 || len(m.Flows) != 1 || m.Flows[0].ID != "1" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := decode([]byte(`{"kind":"unheard-of"}`)); err != nil || m.Kind != "unheard-of" {
		t.Errorf("%+v, %v", m, err)
	}
}
