package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// networks returns changes that put so many networks, each with so many bytes of what the domain doesn't read.
func networks(n, size int) (changes []link.Change) {
	for i := range n {
		o := storetest.Network(i)
		o.API = []byte(`"` + strings.Repeat("x", size) + `"`)
		changes = append(changes, link.PutNetwork{Network: o})
	}
	return changes
}

// stagedKeys returns how many keys are under stage/.
func stagedKeys(t *testing.T, c *cluster, s *Store) int64 {
	t.Helper()
	resp, err := c.client(t).Get(t.Context(), s.key(dirStage), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Count
}

// S16: a commit with more operations, or more bytes, than etcd takes at once is one commit all the same.
func TestLargeCommit(t *testing.T) {
	c := newCluster(t, 1)
	for _, z := range []struct {
		name          string
		objects, size int
	}{
		{"more operations than a transaction has", 600, 10},
		{"more bytes than a request has", 12, 150_000},
	} {
		t.Run(z.name, func(t *testing.T) {
			opts := Options{Endpoints: c.endpoints(), Prefix: fmt.Sprintf("/%d/", z.objects)}
			s := mustOpen(t, opts)
			following := opts
			following.Registerer = prometheus.NewRegistry()
			other := mustOpen(t, following)
			watch := other.Watch(t.Context())
			want, err := s.Commit(t.Context(), load(t, s), storetest.Entry(1), networks(z.objects, z.size)...)
			if err != nil {
				t.Fatal(err)
			}
			for snap := range watch {
				if snap.Revision() == 1 {
					wantSame(t, 1, snap, want)
					break
				}
				if snap.Revision() != 0 {
					t.Fatalf("revision %d", snap.Revision())
				}
			}
			if n := stagedKeys(t, c, s); n != 0 {
				t.Errorf("%d parts are left", n)
			}
			if n := testutil.ToFloat64(other.metrics.watches.WithLabelValues("reload")); n != 0 {
				t.Errorf("%v loads of the whole state", n)
			}
			wantSame(t, 2, put(t, other, z.objects+1), load(t, s))
			wantSame(t, 3, load(t, mustOpen(t, opts)), load(t, s))
			var file bytes.Buffer
			if err := s.Backup(t.Context(), &file); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Restore(t.Context(), other, strings.NewReader(file.String()), storetest.Entry(2)); err != nil {
				t.Errorf("restore: %v", err)
			}
			if len(verifyAudit(t, s)) != 3 {
				t.Error("not three entries")
			}
		})
	}
}

// TestLargeCommitAbandoned: a node dies when its large commit has been published and nothing is in its place yet, or
// some of it. All see the commit; the next one who commits ends the work.
func TestLargeCommitAbandoned(t *testing.T) {
	c := newCluster(t, 1)
	for _, done := range []int{0, 1, 5} {
		t.Run(fmt.Sprintf("after %d steps", done), func(t *testing.T) {
			opts := Options{Endpoints: c.endpoints(), Prefix: fmt.Sprintf("/%d/", done)}
			s, follower := mustOpen(t, opts), mustOpen(t, opts)
			put(t, s, 700) // is replaced
			base := load(t, s)
			changes := append(networks(510, 10), link.DeleteNetwork{ID: storetest.Network(700).ID})
			cur := s.current.Load()
			next, deltas, err := cur.snapshot.Apply(storetest.Entry(1).At, changes...)
			if err != nil {
				t.Fatal(err)
			}
			p, err := s.plan(cur, next, storetest.Entry(1), deltas)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.publish(t.Context(), cur, p); err != nil {
				t.Fatal(err)
			}
			for i := range done {
				if _, err := s.step(t.Context(), p.next, s.ops(p.writes[100*i:100*(i+1)])); err != nil {
					t.Fatal(err)
				}
			}
			wantSame(t, 0, load(t, follower), next)
			opened := mustOpen(t, Options{Endpoints: c.endpoints(), Prefix: opts.Prefix, ReadOnly: true})
			wantSame(t, 1, load(t, opened), next)
			if n := stagedKeys(t, c, s); n == 0 {
				t.Error("nothing is staged: it tests little")
			}
			if _, err := follower.Commit(t.Context(), base, storetest.Entry(2)); !errors.Is(err, store.ErrConflict) {
				t.Errorf("on the revision before: %v", err)
			}
			want := put(t, follower, 701)
			if n := stagedKeys(t, c, s); n != 0 {
				t.Errorf("%d parts are left", n)
			}
			for i, s := range []*Store{s, opened, mustOpen(t, opts)} {
				wantSame(t, i, load(t, s), want)
			}
			if len(verifyAudit(t, opened)) != 3 {
				t.Error("not three entries")
			}
			// Who comes late with a step of the old commit does nothing.
			if _, err := s.step(t.Context(), p.next, s.ops(p.writes[:1])); !errors.Is(err, store.ErrConflict) {
				t.Errorf("a late step: %v", err)
			}
		})
	}
}

// S16: what etcd can't take is refused before it is sent, with the limit named; servers with lower limits than
// this node knows refuse with the flag named. Nothing of it is stored.
func TestTooLarge(t *testing.T) {
	c := newCluster(t, 1, func(conf *embed.Config) { conf.MaxTxnOps, conf.MaxRequestBytes = 32, 1<<20 })
	s := mustOpen(t, Options{Endpoints: c.endpoints(), Log: slog.New(slog.DiscardHandler)})
	base := put(t, s, 5000)
	for _, z := range []struct {
		name          string
		objects, size int
		want          string
	}{
		{"one object", 1, 1_300_000, "--max-request-bytes"},
		{"servers that take fewer operations", 100, 10, "--max-txn-ops"},
		{"servers that take smaller requests", 1, 1_100_000, "--max-request-bytes"},
		{"servers that take smaller parts", 300, 10_000, "--max-request-bytes"},
	} {
		t.Run(z.name, func(t *testing.T) {
			_, err := s.Commit(t.Context(), base, storetest.Entry(1), networks(z.objects, z.size)...)
			if err == nil || !strings.Contains(err.Error(), z.want) || errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("%v, want one that names %s", err, z.want)
			}
			if got := load(t, s); got.Revision() != base.Revision() {
				t.Errorf("revision %d", got.Revision())
			}
			if n := stagedKeys(t, c, s); n != 0 {
				t.Errorf("%d parts are left", n)
			}
		})
	}
	put(t, s, 5001)
}
