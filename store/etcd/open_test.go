package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// within opens with a time limit and closes what it got.
func within(t *testing.T, d time.Duration, opts Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s, err := Open(ctx, opts)
	if err == nil {
		s.Close()
	}
	return err
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, z := range []struct {
		name string
		opts Options
		want string
	}{
		{"no endpoints", Options{}, "no endpoints"},
		{"a prefix without its slash", Options{Endpoints: []string{"127.0.0.1:1"}, Prefix: "/postern"}, "prefix"},
		{"limits too small", Options{Endpoints: []string{"127.0.0.1:1"}, RequestBytes: 1000}, "too small"},
		{"a cluster that is away", Options{Endpoints: []string{"127.0.0.1:1"}}, "127.0.0.1:1"},
		{"a cluster that is away, and a password", Options{Endpoints: []string{"127.0.0.1:1"}, Username: "a", Password: "b"}, "127.0.0.1:1"},
	} {
		t.Run(z.name, func(t *testing.T) {
			if err := within(t, 300*time.Millisecond, z.opts); err == nil || !strings.Contains(err.Error(), z.want) {
				t.Errorf("%v, want one that says %q", err, z.want)
			}
		})
	}
}

// TestOpenWaits: a node that starts before the cluster does is ready when that is.
func TestOpenWaits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	put(t, mustOpen(t, Options{Endpoints: c.endpoints()}), 0)
	m := c.members[0]
	m.stop()
	if err := within(t, 300*time.Millisecond, Options{Endpoints: c.endpoints()}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cluster is away: %v", err)
	}
	opened := make(chan uint64)
	go func() {
		defer close(opened)
		opened <- load(t, mustOpen(t, Options{Endpoints: c.endpoints()})).Revision()
	}()
	time.Sleep(50 * time.Millisecond) // so that it is most likely waiting
	m.start(t)
	if r := <-opened; r != 1 {
		t.Errorf("revision %d", r)
	}
}

// TestOpenForeign: what isn't a state of ours is refused and left as it is.
func TestOpenForeign(t *testing.T) {
	c := newCluster(t, 1)
	client := c.client(t)
	set := func(key, value string) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			if _, err := client.Put(t.Context(), s.key(key), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(key string) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			if resp, err := client.Delete(t.Context(), s.key(key)); err != nil || resp.Deleted != 1 {
				t.Fatal(key, err)
			}
		}
	}
	change := func(f func(*meta)) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			m := s.current.Load().meta
			f(&m)
			b, err := store.Seal(m)
			if err != nil {
				t.Fatal(err)
			}
			set(keyMeta, string(b))(t, s)
		}
	}
	rec, err := store.EncodeRecord(&link.Network{ID: "net-9"})
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range []struct {
		name   string
		change func(*testing.T, *Store)
		want   error
	}{
		{"keys without meta", remove(keyMeta), store.ErrForeign},
		{"a newer format", change(func(m *meta) { m.Format++ }), store.ErrForeign},
		{"no meta of ours", set(keyMeta, "hello"), store.ErrDamaged},
		{"an object less", remove(dirObject + "network/net-0"), store.ErrDamaged},
		{"an object more", set(dirObject+"network/net-9", string(rec)), store.ErrDamaged},
		{"an unknown kind", set(dirObject+"tunnel/x", string(rec)), store.ErrForeign},
		{"an object under another key", set(dirObject+"network/net-8", string(rec)), store.ErrDamaged},
		{"a flipped object", set(dirObject+"network/net-0", string(rec[:len(rec)-1])+"!"), store.ErrDamaged},
		{"the last audit line is missing", remove(auditKey(2)), store.ErrDamaged},
		{"staged parts are missing", change(func(m *meta) { m.Stage = &stage{Entry: "x", Parts: 1} }), store.ErrDamaged},
	} {
		t.Run(z.name, func(t *testing.T) {
			opts := Options{Endpoints: c.endpoints(), Prefix: "/" + strings.ReplaceAll(z.name, " ", "-") + "/", Log: slog.New(slog.DiscardHandler)}
			s := mustOpen(t, opts)
			put(t, s, 0)
			good := put(t, s, 1)
			z.change(t, s)
			start := time.Now()
			if err := within(t, 10*time.Second, opts); !errors.Is(err, z.want) {
				t.Errorf("%v, want %v", err, z.want)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %s to say so", took)
			}
			// The node that was there before goes on with the last good snapshot.
			if got := <-s.Watch(t.Context()); got.Revision() != good.Revision() {
				t.Errorf("revision %d, want %d", got.Revision(), good.Revision())
			}
		})
	}
}

// TestReplaced: the state is deleted under a node, and another made in its place. The node keeps what it has,
// confirms nothing, and takes no commit.
func TestReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	s := mustOpen(t, Options{Endpoints: c.endpoints()})
	good := put(t, s, 0)
	if _, err := c.client(t).Delete(t.Context(), s.opts.Prefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node notices", func() bool { return errors.Is(s.Err(), store.ErrDamaged) })
	if _, err := s.Load(t.Context()); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("load: %v", err)
	}
	other := mustOpen(t, Options{Endpoints: c.endpoints()})
	for n := range 3 {
		put(t, other, n+1)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("load: %v", err)
	}
	if _, err := s.Commit(t.Context(), good, storetest.Entry(9)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("commit: %v", err)
	}
	if got := <-s.Watch(t.Context()); got.Revision() != good.Revision() || got.Network(storetest.Network(0).ID) == nil {
		t.Errorf("revision %d", got.Revision())
	}
}

// TestOlderCopy: the keys are set back to those of an older moment, as by a restore of etcd, and others write on. A node
// that was there never takes the other history for its own, also not when that is longer. A node that is started does.
func TestOlderCopy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	ctx, client := t.Context(), c.client(t)
	s := mustOpen(t, Options{Endpoints: c.endpoints()})
	put(t, s, 0)
	copied, err := client.Get(ctx, s.opts.Prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	good := put(t, s, 1)
	ops := []clientv3.Op{clientv3.OpDelete(s.key(dirObject + "network/net-1")), clientv3.OpDelete(s.key(auditKey(2)))}
	for _, kv := range copied.Kvs {
		ops = append(ops, clientv3.OpPut(string(kv.Key), string(kv.Value)))
	}
	if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(ctx); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("load: %v", err)
	}
	other := mustOpen(t, Options{Endpoints: c.endpoints()})
	for n := range 3 {
		put(t, other, n+5)
	}
	since := s.Confirmed()
	within, cancel := context.WithTimeout(ctx, 6*time.Second) // longer than it takes until all is loaded
	defer cancel()
	if snap, err := s.Load(within); err == nil {
		t.Errorf("it follows the other history, at revision %d", snap.Revision())
	}
	eventually(t, "the node says why", func() bool { return errors.Is(s.Err(), store.ErrDamaged) })
	if s.Confirmed() != since {
		t.Error("the view was confirmed by another history")
	}
	if got := <-s.Watch(ctx); got.Revision() != good.Revision() {
		t.Errorf("revision %d, want %d", got.Revision(), good.Revision())
	}
	wantSame(t, 0, load(t, mustOpen(t, Options{Endpoints: c.endpoints()})), load(t, other))
}

// TestJudge: what may follow a view.
func TestJudge(t *testing.T) {
	before := &view{meta: meta{State: "a", Revision: 5}, mod: 50}
	for _, z := range []struct {
		name string
		meta meta
		mod  int64
		ok   bool
	}{
		{"the same", meta{State: "a", Revision: 5}, 50, true},
		{"put in its place", meta{State: "a", Revision: 5}, 52, true},
		{"newer", meta{State: "a", Revision: 9}, 60, true},
		{"older", meta{State: "a", Revision: 4}, 60, false},
		{"another state", meta{State: "b", Revision: 9}, 60, false},
		{"a copy in a younger etcd", meta{State: "a", Revision: 5}, 40, false},
		{"a copy in a younger etcd that was written to", meta{State: "a", Revision: 9}, 49, false},
	} {
		t.Run(z.name, func(t *testing.T) {
			if err := new(Store).judge(before, z.meta, z.mod); z.ok != (err == nil) || !z.ok && !errors.Is(err, store.ErrDamaged) {
				t.Error(err)
			}
		})
	}
}

// TestRights: a node with rights to read follows and writes nothing.
func TestRights(t *testing.T) {
	c := newCluster(t, 1, func(conf *embed.Config) { conf.BcryptCost = 4 }) // the least: the cost of passwords is not what is tested
	ctx, client := t.Context(), c.client(t)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	end := clientv3.GetPrefixRangeEnd(DefaultPrefix)
	for _, u := range []struct {
		name string
		may  clientv3.PermissionType
	}{{"writer", clientv3.PermissionType(clientv3.PermReadWrite)}, {"reader", clientv3.PermissionType(clientv3.PermRead)}} {
		must(client.RoleAdd(ctx, u.name))
		must(client.RoleGrantPermission(ctx, u.name, DefaultPrefix, end, u.may))
		must(client.UserAdd(ctx, u.name, "secret"))
		must(client.UserGrantRole(ctx, u.name, u.name))
	}
	must(client.UserAdd(ctx, "root", "root"))
	must(client.UserGrantRole(ctx, "root", "root"))
	must(client.AuthEnable(ctx))

	as := func(name string) Options {
		return Options{Endpoints: c.endpoints(), Username: name, Password: "secret", Log: slog.New(slog.DiscardHandler)}
	}
	readOnly := as("reader")
	readOnly.ReadOnly = true
	if err := within(t, 3*time.Second, readOnly); err == nil || !strings.Contains(err.Error(), "no state yet") {
		t.Errorf("to read what nobody made: %v", err)
	}
	if err := within(t, 10*time.Second, as("reader")); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("to write without the right: %v", err)
	}
	wrong := as("writer")
	wrong.Password = "guess"
	if err := within(t, 10*time.Second, wrong); err == nil || !strings.Contains(err.Error(), "authentication failed") {
		t.Errorf("wrong password: %v", err)
	}
	writer := mustOpen(t, as("writer"))
	put(t, writer, 0)
	reader := mustOpen(t, readOnly)
	watch := reader.Watch(ctx)
	want := put(t, writer, 1)
	for s := range watch {
		if s.Revision() == want.Revision() {
			break
		}
	}
	wantSame(t, 1, load(t, reader), want)
	if _, err := reader.Commit(ctx, want, storetest.Entry(2)); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("commit: %v, want ErrReadOnly", err)
	}
	if len(verifyAudit(t, reader)) != 2 {
		t.Error("not two entries")
	}
	// One that thinks it may write is told by the cluster, and knows that nothing happened.
	_, err := mustOpen(t, as("reader")).Commit(ctx, want, storetest.Entry(2), link.DeleteNetwork{ID: "net-0"})
	if err == nil || errors.Is(err, store.ErrUnknownOutcome) || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("commit without the right: %v", err)
	}
	// The servers forget whom they gave a token to. Nodes sign in again by themselves.
	c.members[0].stop()
	c.members[0].start(t)
	want = put(t, writer, 3)
	for s := range watch {
		if s.Revision() == want.Revision() {
			break
		}
	}
}

// TestTLS: a cluster whose certificate is checked; where that isn't known the error says so.
func TestTLS(t *testing.T) {
	info, err := transport.SelfCert(zap.NewNop(), t.TempDir(), []string{"127.0.0.1:0"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 1, func(conf *embed.Config) {
		conf.ClientTLSInfo = info
		conf.ListenClientUrls[0].Scheme, conf.AdvertiseClientUrls[0].Scheme = "https", "https"
	})
	pem, err := os.ReadFile(info.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	endpoint := "https://" + c.endpoints()[0]
	s := mustOpen(t, Options{Endpoints: []string{endpoint}, TLS: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}})
	put(t, s, 0)
	if err := within(t, time.Second, Options{Endpoints: []string{endpoint}, TLS: &tls.Config{RootCAs: x509.NewCertPool()}}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody we know: %v", err)
	}
}
