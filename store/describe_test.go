package store

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

func TestDescribe(t *testing.T) {
	given := []string{"s9", "s1"}
	e := Entry{Scopes: given}
	err := e.Describe(7, []link.Delta{
		{Kind: link.KindDocument, Key: "group:s1/g", Old: &link.Document{Type: "group", ID: "s1/g"}},
		{Kind: link.KindEndpoint, Key: "s2/g/e", Old: &link.Endpoint{ID: "s2/g/e"}, New: &link.Endpoint{ID: "s2/g/e", Tenant: "t"}},
		{Kind: link.KindNetwork, Key: "lan", New: &link.Network{ID: "lan"}},
		{Kind: link.KindRecord, Key: "s3/g/z/a/@", New: &link.RecordSet{Zone: "s3/g/z", Type: "A", Name: "@"}},
		{Kind: link.KindRetired, Key: "00000001", New: &link.Retired{LinkID: 1}},
		{Kind: link.KindService, Key: "s1/g/v", New: &link.Service{ID: "s1/g/v"}},
		{Kind: link.KindZone, Key: "s4/g/z", New: &link.PrivateZone{ID: "s4/g/z"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Revision != 7 || e.ID == "" {
		t.Errorf("revision %d, ID %q", e.Revision, e.ID)
	}
	if want := []string{"s1", "s2", "s3", "s4", "s9"}; !slices.Equal(e.Scopes, want) {
		t.Errorf("scopes %q, want %q", e.Scopes, want)
	}
	if !slices.Equal(given, []string{"s9", "s1"}) {
		t.Error("the caller's scopes were altered")
	}
	if len(e.Changes) != 7 || e.Changes[0] != "document/group:s1/g: deleted" || e.Changes[1] != "endpoint/s2/g/e: updated" {
		t.Errorf("changes %q", e.Changes)
	}
	var objects []string
	for _, d := range e.Diffs {
		objects = append(objects, d.Object)
	}
	if want := []string{"service/s1/g/v", "endpoint/s2/g/e", "network/lan", "zone/s4/g/z", "record/s3/g/z/a/@", "document/group:s1/g"}; !slices.Equal(objects, want) || e.Truncated != 0 {
		t.Errorf("diffs of %q and %d more, want %q", objects, e.Truncated, want)
	}
	if d := e.Diffs[5]; d.After != nil || !json.Valid(d.Before) {
		t.Errorf("deleted: %s, %s", d.Before, d.After)
	}
	if d := e.Diffs[1]; string(d.Before) == string(d.After) || !strings.Contains(string(d.After), `"tenant":"t"`) {
		t.Errorf("updated: %s, %s", d.Before, d.After)
	}
	if d := e.Diffs[2]; d.Before != nil || !json.Valid(d.After) {
		t.Errorf("created: %s, %s", d.Before, d.After)
	}
}

// TestDescribeBounds: an entry says at most so much about the objects, and how much it doesn't say.
func TestDescribeBounds(t *testing.T) {
	deltas := func(n, size int) (ds []link.Delta) {
		for i := range n {
			o := &link.Document{ID: link.ID(fmt.Sprintf("s/g/%06d", i)), Tenant: strings.Repeat("x", size)}
			ds = append(ds, link.Delta{Kind: link.KindDocument, Key: o.Key(), New: o})
		}
		return ds
	}
	for _, c := range []struct {
		name                string
		n, size             int
		wantDiffs, wantMore int
	}{
		{"as many as it holds", MaxDiffs, 10, MaxDiffs, 0},
		{"one more", MaxDiffs + 1, 10, MaxDiffs, 1},
		{"a hundred thousand", 100_000, 10, MaxDiffs, 100_000 - MaxDiffs},
		{"large ones", 10, MaxDiffBytes / 3, 10, 0},
		{"too large for any", 2, MaxDiffBytes, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Entry
			if err := e.Describe(1, deltas(c.n, c.size)); err != nil {
				t.Fatal(err)
			}
			if len(e.Diffs) != c.wantDiffs || e.Truncated != c.wantMore {
				t.Errorf("%d diffs, %d more; want %d, %d", len(e.Diffs), e.Truncated, c.wantDiffs, c.wantMore)
			}
			told, size := len(e.Changes), 0
			for _, c := range e.Changes {
				size += len(c)
			}
			if size > MaxChangeBytes+100 {
				t.Errorf("%d bytes of changes", size)
			}
			if told != c.n && e.Changes[told-1] != fmt.Sprintf("and %d more", c.n-told+1) {
				t.Errorf("%d changes, the last is %q", told, e.Changes[told-1])
			}
		})
	}
}

// TestDescribeHidesNothing: what is padded, the service itself, others or a load balancer, doesn't hide what
// else changed, and each object is named.
func TestDescribeHidesNothing(t *testing.T) {
	padding := json.RawMessage(`"` + strings.Repeat("x", 2*MaxDiffBytes) + `"`)
	service := func(id link.ID, addr string) *link.Service {
		return &link.Service{ID: id, Facet: link.Facet{API: padding}, Targets: []link.Target{{Addr: netip.MustParseAddrPort(addr)}}}
	}
	balancer := &link.Document{Type: "balancer", ID: "s/g/lb", Facet: link.Facet{API: padding}}
	// An endpoint that is too long without the API's part too.
	long := &link.Endpoint{ID: "s/g/e", Service: "t/g/v", Tenant: strings.Repeat("x", MaxDiffBytes)}
	var e Entry
	err := e.Describe(1, []link.Delta{
		{Kind: link.KindDocument, Key: balancer.Key(), New: balancer},
		{Kind: link.KindEndpoint, Key: long.Key(), New: long},
		{Kind: link.KindService, Key: "s/g/v", Old: service("s/g/v", "10.0.0.1:443"), New: service("s/g/v", "10.0.0.2:443")},
		{Kind: link.KindService, Key: "s/g/w", Old: service("s/g/w", "10.0.0.3:443"), New: service("s/g/w", "10.0.0.4:443")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Diffs) != 4 || e.Truncated != 0 {
		t.Fatalf("%d diffs, %d more", len(e.Diffs), e.Truncated)
	}
	for i, want := range []struct{ object, after string }{
		{"service/s/g/v", `"addr":"10.0.0.2:443"`},
		{"service/s/g/w", `"addr":"10.0.0.4:443"`},
		{"endpoint/s/g/e", `"service":"t/g/v"`},
		{"document/balancer:s/g/lb", `"sha256":`},
	} {
		d := e.Diffs[i]
		if d.Object != want.object || !strings.Contains(string(d.After), want.after) || len(d.After) > 1000 {
			t.Errorf("diff %d is of %s: %.200s; want %s with %s", i, d.Object, d.After, want.object, want.after)
		}
	}
	var short Digest
	whole, _ := encodeBody(long)
	if err := json.Unmarshal(e.Diffs[2].After, &short); err != nil || short.Bytes != len(whole) || short.SHA256 != fmt.Sprintf("%x", sha256.Sum256(whole)) {
		t.Errorf("digest %+v, %v; of %d bytes", short, err, len(whole))
	}
}

// TestEntryOfNewerVersion: a line with fields that we don't know is read without them.
func TestEntryOfNewerVersion(t *testing.T) {
	body := []byte(`{"id":"x","revision":1,"at":"2026-01-02T03:04:05Z","actor":"eve","action":"a","region":{"b":1},"diffs":[{"object":"o","by":"z"}]}`)
	chain := Chain{}.after(1, body)
	line := append(append([]byte{RecordFormat}, chain[:]...), body...)
	e, after, err := Chain{}.Next(1, line)
	want := Entry{ID: "x", Revision: 1, At: when.Truncate(1e9), Actor: "eve", Action: "a", Diffs: []Diff{{Object: "o"}}}
	if err != nil || after != chain || !reflect.DeepEqual(e, want) {
		t.Errorf("%+v, %v; want %+v", e, err, want)
	}
}
