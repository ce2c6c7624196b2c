package etcd

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// heavy skips a test that starts three members under -short.
func heavy(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a cluster of three members and its faults take seconds")
	}
}

// eventually waits for what must happen within a generous time, and returns how long it took.
func eventually(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("in 20 s not: %s", what)
		}
	}
}

// verifyAudit checks the whole chain of a store and returns how often each entry ID is in it.
func verifyAudit(t *testing.T, s store.Store) map[string]int {
	t.Helper()
	ids := map[string]int{}
	for e, err := range s.Audit(t.Context(), 0) {
		if err != nil {
			t.Fatal("audit:", err)
		}
		ids[e.ID]++
	}
	return ids
}

// S09: the leader is killed twice during 1,000 changes by two nodes. What was acknowledged is there once,
// both nodes see the same, and writing goes on. The elections take a second each. All other time goes into the
// changes: four writers of one state get in each other's way, so that one change is decided two or three times.
func TestLeaderKilled(t *testing.T) {
	heavy(t)
	const writers, each = 4, 250 / effort
	c := newCluster(t, 3)
	nodes := []*Store{mustOpen(t, Options{Endpoints: c.endpoints()}), mustOpen(t, Options{Endpoints: c.endpoints()})}
	var mu sync.Mutex
	acked, longest, last := map[string]bool{}, time.Duration(0), time.Now()
	third := make(chan int, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e, n := storetest.Entry(w*each+i), w*each+i
				_, err := store.Update(t.Context(), nodes[w%2], func(*link.Snapshot) (store.Entry, []link.Change, error) {
					return e, []link.Change{link.PutNetwork{Network: storetest.Network(n % 50)}}, nil
				})
				if err != nil {
					t.Errorf("change %d: %v", n, err)
					continue
				}
				mu.Lock()
				acked[e.ID] = true
				longest, last = max(longest, time.Since(last)), time.Now()
				third <- len(acked)
				mu.Unlock()
			}
		})
	}
	go func() { wg.Wait(); close(third) }()
	var down *member
	for n := range third {
		switch n {
		case 300 / effort, 650 / effort:
			if down != nil {
				down.start(t)
			}
			down = c.leader(t)
			down.stop()
		}
	}
	t.Logf("longest time without a change: %s", longest)
	if longest > 10*time.Second {
		t.Errorf("%s without a change", longest)
	}
	ids := verifyAudit(t, nodes[0])
	for id := range acked {
		if ids[id] != 1 {
			t.Errorf("entry %s is there %d times", id, ids[id])
		}
	}
	a, b := load(t, nodes[0]), load(t, nodes[1])
	if a.Revision() != writers*each || b.Revision() != a.Revision() {
		t.Errorf("revisions %d and %d, want %d", a.Revision(), b.Revision(), writers*each)
	}
	fresh := load(t, mustOpen(t, Options{Endpoints: c.endpoints(), ReadOnly: true}))
	for i, s := range []*link.Snapshot{a, b} {
		wantSame(t, i, s, fresh)
	}
}

func wantSame(t *testing.T, i int, got, want *link.Snapshot) {
	t.Helper()
	g, w := storetest.Dump(t, got), storetest.Dump(t, want)
	if len(g) != len(w) {
		t.Fatalf("node %d has %d objects, want %d", i, len(g), len(w))
	}
	for n := range g {
		if g[n] != w[n] {
			t.Fatalf("node %d has %s, want %s", i, g[n], w[n])
		}
	}
}

// S10, S11: every packet of a node is dropped. It notices, keeps what it has, and when packets pass again
// catches up at once: also with what etcd no longer has a history of, deletions included.
func TestPartition(t *testing.T) {
	t.Parallel()
	heavy(t)
	c := newCluster(t, 3)
	var direct []string
	for _, m := range c.members {
		direct = append(direct, m.config.ListenClientUrls[0].Host)
	}
	reg := prometheus.NewRegistry()
	writer, node := mustOpen(t, Options{Endpoints: direct}), mustOpen(t, Options{Endpoints: c.endpoints(), ReadOnly: true, Registerer: reg})
	for n := range 5 {
		put(t, writer, n)
	}
	before := load(t, node)
	watch := node.Watch(t.Context())
	<-watch
	for _, m := range c.members {
		m.forward.set(true, false)
	}
	since := node.Confirmed()
	t.Logf("noticed after %s", eventually(t, "the node notices", func() bool { return node.Err() != nil }))
	if age := time.Since(node.Confirmed()); age > 10*time.Second {
		t.Errorf("noticed when the view was %s old", age)
	}
	if node.Confirmed().Sub(since) > 2*time.Second {
		t.Error("the view was confirmed behind a wall")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := node.Load(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("load behind a wall: %v", err)
	}
	_, err := store.Update(t.Context(), writer, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return storetest.Entry(9), []link.Change{link.DeleteNetwork{ID: storetest.Network(2).ID}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := put(t, writer, 10)
	client := c.client(t)
	resp, err := client.Get(t.Context(), writer.key(keyMeta))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if got := node.current.Load().snapshot; got.Revision() != before.Revision() {
		t.Errorf("revision %d came through the wall", got.Revision())
	}
	for _, m := range c.members {
		m.forward.cut() // as after a longer time, when either side has given the connection up
		m.forward.set(false, false)
	}
	start := time.Now()
	for s := range watch {
		if s.Revision() == want.Revision() {
			break
		}
	}
	t.Logf("caught up after %s", time.Since(start))
	wantSame(t, 1, load(t, node), want)
	if load(t, node).Network(storetest.Network(2).ID) != nil {
		t.Error("a deletion was missed")
	}
	eventually(t, "the node is well", func() bool { return node.Err() == nil })
	if n := testutil.ToFloat64(node.metrics.watches.WithLabelValues("reload")); n != 1 {
		t.Errorf("%v full loads, want 1: the history was compacted", n)
	}
}

// TestLeaderStalled: the leader goes on living and hears nothing, from members or nodes, as with a disk or a network
// that hangs. Commits and watches go on with the others.
func TestLeaderStalled(t *testing.T) {
	t.Parallel()
	heavy(t)
	c := newCluster(t, 3)
	a, b := mustOpen(t, Options{Endpoints: c.endpoints(), Timeout: 20 * time.Second}), mustOpen(t, Options{Endpoints: c.endpoints(), ReadOnly: true})
	put(t, a, 0)
	watch := b.Watch(t.Context())
	stalled := c.leader(t)
	stalled.isolate(true)
	start := time.Now()
	want := put(t, a, 1)
	t.Logf("stored after %s", time.Since(start))
	for s := range watch {
		if s.Revision() == want.Revision() {
			break
		}
	}
	t.Logf("seen by the other after %s", time.Since(start))
	put(t, a, 2)
	stalled.isolate(false)
	want = put(t, a, 3)
	wantSame(t, 1, load(t, b), want)
	verifyAudit(t, b)
}

// S13: the answer to a commit is lost. It is sent again and found; where there is no time for that it is told, and
// found later. Nothing is done twice.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	s := mustOpen(t, Options{Endpoints: c.endpoints()})
	other := mustOpen(t, Options{Endpoints: []string{c.members[0].config.ListenClientUrls[0].Host}})
	base := put(t, s, 0)
	f := c.members[0].forward

	e := storetest.Entry(1)
	f.set(false, true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := s.Commit(ctx, base, e, link.PutNetwork{Network: storetest.Network(1)})
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Fatalf("%v, want ErrUnknownOutcome", err)
	}
	f.set(false, false)
	got, found, err := store.Find(t.Context(), s, e.ID, base.Revision()+1)
	if err != nil || !found || got.Revision != base.Revision()+1 {
		t.Errorf("found %t at %d, %v", found, got.Revision, err)
	}
	if s := load(t, s); s.Revision() != 2 || s.Network(storetest.Network(1).ID) == nil {
		t.Errorf("revision %d", s.Revision())
	}

	eventually(t, "the node is up to date", func() bool { return s.current.Load().meta.Revision == 2 })
	f.set(false, true)
	base = load(t, other)
	done := make(chan struct{})
	go func() {
		defer close(done)
		snap, err := s.Commit(t.Context(), base, storetest.Entry(2), link.PutNetwork{Network: storetest.Network(2)})
		if err != nil || snap.Revision() != 3 {
			t.Errorf("answered late: %v, want revision 3", err)
		}
	}()
	eventually(t, "it lands", func() bool { return load(t, other).Revision() == 3 })
	f.cut()
	f.set(false, false)
	<-done
	if ids := verifyAudit(t, s); len(ids) != 3 {
		t.Errorf("%d entries, want 3", len(ids))
	}

	// And where another took the revision, the lost one is a conflict and not an unknown.
	base = load(t, s)
	f.set(true, false)
	done = make(chan struct{})
	go func() {
		_, err := s.Commit(t.Context(), base, storetest.Entry(4), link.PutNetwork{Network: storetest.Network(4)})
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("overtaken: %v, want ErrConflict", err)
		}
		close(done)
	}()
	time.Sleep(50 * time.Millisecond) // most likely it is on its way; it must be right in any case
	put(t, other, 5)
	f.cut()
	f.set(false, false)
	<-done

	// With nobody there nothing is sent, and that is known.
	base = load(t, s)
	c.members[0].stop()
	eventually(t, "the node notices", func() bool { return s.Err() != nil })
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Commit(ctx, base, storetest.Entry(6)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("cluster is away: %v", err)
	}
}

// TestNoSpace: servers whose quota is used up while a commit is applied have stored it, and answer that there was no
// space. That is told as what it is.
func TestNoSpace(t *testing.T) {
	c := newCluster(t, 1)
	s := mustOpen(t, Options{Endpoints: c.endpoints()})
	put(t, s, 0)
	prepare := func(n int) (*view, *plan) {
		cur, e := s.current.Load(), storetest.Entry(n)
		next, deltas, err := cur.snapshot.Apply(e.At, link.PutNetwork{Network: storetest.Network(n)})
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.plan(cur, next, e, deltas)
		if err != nil {
			t.Fatal(err)
		}
		return cur, p
	}
	_, lost := prepare(1)
	if err := s.full(t.Context(), lost, rpctypes.ErrNoSpace, false); !errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("refused: %v", err)
	}
	if err := s.full(t.Context(), lost, rpctypes.ErrNoSpace, true); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("refused, and another try may be on its way: %v", err)
	}
	cur, p := prepare(2)
	if err := s.publish(t.Context(), cur, p); err != nil {
		t.Fatal(err)
	}
	for _, maybe := range []bool{false, true} {
		if err := s.full(t.Context(), p, rpctypes.ErrNoSpace, maybe); err != nil {
			t.Errorf("stored: %v", err)
		}
	}
	if err := s.full(t.Context(), lost, rpctypes.ErrNoSpace, false); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("refused, and another was stored: %v", err)
	}
}

// S14: two nodes give out the last address at once. One has it, the other is told that there is none.
func TestLastAddress(t *testing.T) {
	c := newCluster(t, 1)
	nodes := []*Store{mustOpen(t, Options{Endpoints: c.endpoints()}), mustOpen(t, Options{Endpoints: c.endpoints()})}
	n := storetest.Network(0)
	n.Pools = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/31")}
	v := link.Service{
		ID: "v", Alias: "v.alias", Port: 443, Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:443")}}, Tenant: n.Tenant,
		Visible: []link.Party{link.Anyone}, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
	}
	ask := func(id link.ID) link.PutEndpoint {
		return link.PutEndpoint{Endpoint: link.Endpoint{ID: id, Tenant: n.Tenant, Network: n.ID, Service: v.ID}}
	}
	if _, err := nodes[0].Commit(t.Context(), load(t, nodes[0]), storetest.Entry(0), link.PutNetwork{Network: n}, link.PutService{Service: v}, ask("first")); err != nil {
		t.Fatal(err)
	}
	for round := range 10 {
		bases := []*link.Snapshot{load(t, nodes[0]), load(t, nodes[1])}
		ids := []link.ID{"left", "right"}
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range nodes {
			wg.Go(func() { _, errs[i] = nodes[i].Commit(t.Context(), bases[i], storetest.Entry(round), ask(ids[i])) })
		}
		wg.Wait()
		won := 0
		if errs[0] != nil {
			won = 1
		}
		if errs[won] != nil || !errors.Is(errs[1-won], store.ErrConflict) {
			t.Fatalf("round %d: %v", round, errs)
		}
		_, err := store.Update(t.Context(), nodes[1-won], func(*link.Snapshot) (store.Entry, []link.Change, error) {
			return storetest.Entry(round), []link.Change{ask(ids[1-won])}, nil
		})
		if !errors.Is(err, link.ErrExhausted) {
			t.Fatalf("round %d: decided again: %v, want ErrExhausted", round, err)
		}
		if _, err := nodes[won].Commit(t.Context(), load(t, nodes[won]), storetest.Entry(round), link.DeleteEndpoint{ID: ids[won]}); err != nil {
			t.Fatal(err)
		}
	}
}
