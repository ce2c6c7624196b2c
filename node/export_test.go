package node

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/prometheus/client_golang/prometheus"
)

// receiver is a webhook of a test.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	flows []map[string]any
	audit map[uint64][]byte // lines by revision
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{audit: map[uint64][]byte{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		z, err := gzip.NewReader(q.Body)
		if err != nil {
			t.Error(err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for d := json.NewDecoder(z); ; {
			var one struct {
				Revision uint64
				Line     []byte
			}
			var raw json.RawMessage
			if err := d.Decode(&raw); err != nil {
				return
			}
			_ = json.Unmarshal(raw, &one)
			if one.Line != nil {
				r.audit[one.Revision] = one.Line
				continue
			}
			var f map[string]any
			_ = json.Unmarshal(raw, &f)
			r.flows = append(r.flows, f)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// flow waits for the i-th flow record.
func (r *receiver) flow(t *testing.T, i int) (f map[string]any) {
	t.Helper()
	r.wait(t, fmt.Sprintf("flow record %d", i), func() bool {
		if len(r.flows) <= i {
			return false
		}
		f = r.flows[i]
		return true
	})
	return f
}

// wait waits until something is so, which may read what has come.
func (r *receiver) wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		ok := is()
		r.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// complete waits for all entries up to a revision, and follows their chain.
func (r *receiver) complete(t *testing.T, revision uint64) {
	t.Helper()
	r.wait(t, fmt.Sprintf("the audit record up to %d", revision), func() bool { return r.audit[revision] != nil })
	var chain store.Chain
	for i := uint64(1); i <= revision; i++ {
		var err error
		if _, chain, err = chain.Next(i, r.audit[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func exportTo(dir, name string, r *receiver) export.Config {
	return export.Config{Name: name, Kind: export.Webhook, URL: r.URL, Flows: true, Audit: true, Position: filepath.Join(dir, name+".position"), Agent: "test"}
}

// Receivers come, change and go with reloads: what is refused changes nothing, what goes on misses nothing, and nothing is left of who is gone.
func TestExports(t *testing.T) {
	dir, port := t.TempDir(), freeport.Get(t)
	first, second := newReceiver(t), newReceiver(t)
	c := config(t, filepath.Join(dir, "state.db"), port, backend(t, "hello"), "127.77.0.31")
	registry := prometheus.NewRegistry()
	c.Registerer = registry
	n := open(t, c)
	defer closeNode(t, n)
	flow := func() {
		t.Helper()
		if said, err := ask("127.77.0.31", port); err != nil || said != "hello" {
			t.Fatalf("%q, %v", said, err)
		}
	}
	reload := func(all ...export.Config) error {
		c := c
		c.Exports = all
		p, err := n.Prepare(t.Context(), c)
		if err != nil {
			return err
		}
		return p.Commit(t.Context())
	}
	named := func(name string) bool {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, f := range families {
			text += f.String()
		}
		return strings.Contains(text, `"`+name+`"`)
	}
	flow() // nobody takes it

	a, b := exportTo(dir, "a", first), exportTo(dir, "b", second)
	if err := reload(a); err != nil {
		t.Fatal(err)
	}
	flow()
	if f := first.flow(t, 0); f["message"] != "flow ended" || f["endpoint"] != "e0" || f["to_client"] != 5.0 || f["node"] != n.Name() {
		t.Errorf("%v", f)
	}
	first.complete(t, n.Snapshot().Revision())

	bad := b
	bad.Token = filepath.Join(dir, "nowhere")
	err := reload(a, bad)
	if about, ok := err.(*ExportError); !ok || about.Name != "b" || !strings.Contains(err.Error(), bad.Token) || named("b") {
		t.Errorf("a receiver without its token: %v", err)
	}
	flow()
	first.flow(t, 1)

	a.URL = second.URL // it moves, and b comes
	if err := reload(a, b); err != nil {
		t.Fatal(err)
	}
	flow()
	second.flow(t, 1) // one of each
	second.complete(t, n.Snapshot().Revision())

	if err := reload(b); err != nil {
		t.Fatal(err)
	}
	flow()
	second.flow(t, 2)
	second.wait(t, "nothing is left of a", func() bool { return !named("a") && named("b") })
	first.mu.Lock()
	defer first.mu.Unlock()
	if len(first.flows) != 2 {
		t.Errorf("the one that was taken out has %d flow records", len(first.flows))
	}
}

// While another process has the state, nobody here sends the audit record; flows go on.
func TestExportsSuspended(t *testing.T) {
	dir, port := t.TempDir(), freeport.Get(t)
	r := newReceiver(t)
	c := config(t, filepath.Join(dir, "state.db"), port, backend(t, "hello"), "127.77.0.32")
	c.Exports = []export.Config{exportTo(dir, "a", r)}
	n := open(t, c)
	defer closeNode(t, n)
	r.complete(t, n.Snapshot().Revision())
	if err := n.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := c
	next.Proxy = nil
	other := open(t, next) // which goes on where this one was
	if _, err := ask("127.77.0.32", port); err != nil {
		t.Fatal(err)
	}
	r.flow(t, 0)
	closeNode(t, other)
	if err := n.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	last, err := n.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.complete(t, last.Revision())
}

// A node that ends sends what waits, and one whose receiver is gone doesn't wait for it.
func TestExportsEnd(t *testing.T) {
	for name, gone := range map[string]bool{"there": false, "gone": true} {
		t.Run(name, func(t *testing.T) {
			dir, port := t.TempDir(), freeport.Get(t)
			r := newReceiver(t)
			c := config(t, filepath.Join(dir, "state.db"), port, backend(t, "hello"), "127.77.0.33")
			c.Exports = []export.Config{exportTo(dir, "a", r)}
			if gone {
				r.Close()
			}
			n := open(t, c)
			if said, err := ask("127.77.0.33", port); err != nil || said != "hello" {
				t.Errorf("%q, %v", said, err)
			}
			began := time.Now()
			closeNode(t, n)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the end took %v", took)
			}
			if !gone {
				r.flow(t, 0)
			}
		})
	}
}

// Nodes that share a state each send all of the audit record, also what another one has committed; the receiver keeps one of each.
func TestExportsShared(t *testing.T) {
	dir, port := t.TempDir(), freeport.Get(t)
	at := Place{Etcd: Etcd{Endpoints: startEtcd(t)}}
	first, second := newReceiver(t), newReceiver(t)
	var nodes []*Node
	for i, r := range []*receiver{first, second} {
		c := config(t, "", port, backend(t, "hello"), fmt.Sprint("127.77.0.", 41+i))
		c.State, c.Proxy = at, nil
		if i > 0 { // its objects are the first one's already
			c.Declaration = link.Declare{Declaration: "another"}
		}
		c.Exports = []export.Config{exportTo(dir, fmt.Sprint("r", i), r)}
		n := open(t, c)
		defer closeNode(t, n)
		nodes = append(nodes, n)
	}
	base := nodes[1].Snapshot()
	now, err := nodes[1].Store().Commit(t.Context(), base, store.Entry{ID: store.NewID(), At: time.Now(), Actor: "tester", Action: "network.put"},
		link.PutNetwork{Network: link.Network{ID: "more", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}})
	if err != nil {
		t.Fatal(err)
	}
	first.complete(t, now.Revision())
	second.complete(t, now.Revision())
}
