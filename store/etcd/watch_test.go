package etcd

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// S12: what a watch must not do and one day does. The snapshot never goes back; what doesn't lead from one meta to
// the next is a gap, which leads to a full load.
func TestWatchMisbehaves(t *testing.T) {
	c := newCluster(t, 1)
	writer := mustOpen(t, Options{Endpoints: c.endpoints()})
	put(t, writer, 0)
	resp, err := c.client(t).Get(t.Context(), writer.key(keyMeta))
	if err != nil {
		t.Fatal(err)
	}
	from := resp.Header.Revision
	for n := range 4 {
		put(t, writer, n+1)
	}
	// txns are the events of each commit, as etcd told them.
	var txns [][]*clientv3.Event
	for resp := range c.client(t).Watch(t.Context(), writer.key(keyMeta), clientv3.WithRange(writer.key("object0")), clientv3.WithRev(from+1)) {
		for _, ev := range resp.Events {
			if n := len(txns); n == 0 || txns[n-1][0].Kv.ModRevision != ev.Kv.ModRevision {
				txns = append(txns, nil)
			}
			txns[len(txns)-1] = append(txns[len(txns)-1], ev)
		}
		if len(txns) == 4 && len(txns[3]) == 2 {
			break
		}
	}
	half := func(metaOnly bool) (out []*clientv3.Event) {
		for _, ev := range txns[0] {
			if (string(ev.Kv.Key) == writer.key(keyMeta)) == metaOnly {
				out = append(out, ev)
			}
		}
		return out
	}
	with := func(change func(*meta)) []*clientv3.Event {
		var m meta
		kv := half(true)[0].Kv
		if err := store.Unseal(kv.Value, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		value, err := store.Seal(m)
		if err != nil {
			t.Fatal(err)
		}
		out := []*clientv3.Event{{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: kv.Key, Value: value, ModRevision: kv.ModRevision}}}
		return append(out, half(false)...)
	}
	for _, z := range []struct {
		name   string
		events [][]*clientv3.Event
		want   uint64 // revision
		gap    bool
	}{
		{"as it should be", txns, 5, false},
		{"all in one", [][]*clientv3.Event{append(append(append(append([]*clientv3.Event{}, txns[0]...), txns[1]...), txns[2]...), txns[3]...)}, 5, false},
		{"duplicates", [][]*clientv3.Event{txns[0], txns[0], txns[1], txns[1]}, 3, false},
		{"old revisions", [][]*clientv3.Event{txns[0], txns[1], txns[2], txns[0], txns[1], txns[3]}, 5, false},
		{"a foreign key between ours", [][]*clientv3.Event{{{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: []byte(writer.key("metal")), ModRevision: from + 1}}}, txns[0]}, 2, false},
		{"a commit is missing", [][]*clientv3.Event{txns[0], txns[2]}, 2, true},
		{"the first is missing", [][]*clientv3.Event{txns[1]}, 1, true},
		{"an object is missing", [][]*clientv3.Event{half(true)}, 1, true},
		{"meta is missing", [][]*clientv3.Event{half(false)}, 1, true},
		{"meta was deleted", [][]*clientv3.Event{{{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(writer.key(keyMeta)), ModRevision: from + 1}}}}, 1, true},
		{"meta of another state", [][]*clientv3.Event{with(func(m *meta) { m.State = "x" })}, 1, true},
		{"meta of an older revision", [][]*clientv3.Event{with(func(m *meta) { m.Revision = 0 })}, 1, true},
		{"meta of another history", [][]*clientv3.Event{with(func(m *meta) { m.Revision = 1 })}, 1, true},
		{"meta of a newer format", [][]*clientv3.Event{with(func(m *meta) { m.Format++ })}, 1, true},
		{"objects that don't add up", [][]*clientv3.Event{with(func(m *meta) { m.Objects.Count++ })}, 1, true},
	} {
		t.Run(z.name, func(t *testing.T) {
			s := still(t, txns, writer)
			var err error
			for _, events := range z.events {
				before := s.current.Load().meta.Revision
				if err = s.take(events); err != nil {
					break
				}
				if now := s.current.Load().meta.Revision; now < before {
					t.Errorf("revision %d after %d", now, before)
				}
			}
			if z.gap != errors.Is(err, errGap) || !z.gap && err != nil {
				t.Errorf("%v, gap wanted: %t", err, z.gap)
			}
			cur := s.current.Load()
			if cur.meta.Revision != z.want || cur.snapshot.Revision() != z.want {
				t.Errorf("revision %d, want %d", cur.meta.Revision, z.want)
			}
		})
	}
}

// still returns a store at revision 1 that follows nothing by itself.
func still(t *testing.T, txns [][]*clientv3.Event, writer *Store) *Store {
	t.Helper()
	snap, _, err := link.Empty().Apply(storetest.Entry(0).At, link.PutNetwork{Network: storetest.Network(0)})
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{opts: writer.opts, log: writer.log, sums: map[string]store.Sum{}, changed: make(chan struct{})}
	rec, err := store.EncodeRecord(snap.Network(storetest.Network(0).ID))
	if err != nil {
		t.Fatal(err)
	}
	r := reader{sums: s.sums}
	if err := r.record("network/net-0", rec); err != nil {
		t.Fatal(err)
	}
	s.current.Store(&view{meta: meta{State: writer.current.Load().meta.State, Revision: 1, Objects: r.set}, mod: txns[0][0].Kv.ModRevision - 1, snapshot: snap})
	return s
}

// FuzzDecodeMeta: whatever is found under the key, the answer is a meta that we would write, or one of our errors.
func FuzzDecodeMeta(f *testing.F) {
	for _, m := range []meta{{Format: metaFormat, State: "x"}, {Format: metaFormat, State: "x", Revision: 7, Stage: &stage{Entry: "e", Parts: 2}}, {Format: 2}} {
		b, err := store.Seal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, value []byte) {
		m, err := decodeMeta(value)
		if err != nil {
			if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if again, err := store.Seal(m); err != nil || string(again) != string(value) {
			t.Fatalf("%s became %s", value, again)
		}
	})
}
