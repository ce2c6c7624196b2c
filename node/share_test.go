package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy"
	"github.com/postern-link/postern/store"
)

// onEtcd returns c with its state in a cluster.
func onEtcd(c Config, endpoint string) Config {
	c.State = Place{Etcd: Etcd{Endpoints: endpoint}}
	c.Stale = policy.Limits{Bound: 15 * time.Minute}
	return c
}

// bare is a node on a cluster that declares nothing and carries nothing.
func bare(name, endpoint string) Config {
	return onEtcd(Config{Declaration: link.Declare{Declaration: name}, From: "Corefile"}, endpoint)
}

// decide commits a decision on the connection of an endpoint.
func decide(t *testing.T, n *Node, endpoint link.ID, state link.State) {
	t.Helper()
	_, err := store.Update(t.Context(), n.Store(), func(s *link.Snapshot) (store.Entry, []link.Change, error) {
		e := s.Endpoint(endpoint)
		return store.Entry{At: time.Now(), Actor: "test", Action: "decide"},
			[]link.Change{link.Decide{Endpoint: endpoint, LinkID: e.Connection.LinkID, State: state}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sees waits until a node has a connection in a state, and returns how long it took.
func sees(t *testing.T, n *Node, endpoint link.ID, state link.State) time.Duration {
	t.Helper()
	began := time.Now()
	waitFor(t, fmt.Sprint(endpoint, " to be ", state), func() bool {
		s := n.Snapshot()
		return s != nil && s.Endpoint(endpoint) != nil && s.Endpoint(endpoint).Connection.State == state
	})
	return time.Since(began)
}

// A decision on one node is in force on all: an approval within a second, a rejection cuts the flow on
// another node within two. The third may only read.
func TestNodesShareAState(t *testing.T) {
	url, port := startEtcd(t), freeport.Get(t)
	declares := onEtcd(config(t, "", port, echo(t), "127.77.0.5"), url)
	declares.Proxy = nil // the data plane is that of the node which may only read
	declares.Declaration.Services[0].AutoApprove = nil
	a := open(t, declares)
	defer closeNode(t, a)
	b := open(t, bare("b", url))
	defer closeNode(t, b)
	reader := bare("c", url)
	reader.State.Etcd.ReadOnly = true
	reader.Proxy = &proxy.Settings{}
	c := open(t, reader)
	defer closeNode(t, c)
	for _, n := range []*Node{a, b, c} {
		sees(t, n, "e0", link.Pending)
	}

	decide(t, b, "e0", link.Approved)
	for name, n := range map[string]*Node{"a": a, "c": c} {
		if took := sees(t, n, "e0", link.Approved); took > time.Second {
			t.Errorf("%s sees the approval after %v", name, took)
		}
	}
	waitFor(t, "the service to be published", func() bool { return c.Published("sql") })
	live := dial(t, "127.77.0.5", port)
	began := time.Now()
	decide(t, a, "e0", link.Rejected)
	live.cutWithin(t, 5*time.Second)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the flow was cut after %v", took)
	}
	// Nobody listens there once no connection of the port is live.
	if got, err := ask("127.77.0.5", port); err == nil {
		t.Errorf("answered %q after the rejection", got)
	}
	if _, err := store.Update(t.Context(), c.Store(), func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{At: time.Now(), Actor: "test", Action: "delete"}, []link.Change{link.DeleteEndpoint{ID: "e0"}}, nil
	}); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("a node that may only read commits: %v", err)
	}
}

// Nodes with one Corefile and one name commit once; a node of another name leaves their objects alone,
// also when it drops its own.
func TestDeclarationsOfNodes(t *testing.T) {
	url, port := startEtcd(t), freeport.Get(t)
	same := onEtcd(config(t, "", port, echo(t), "127.77.0.5"), url)
	same.Proxy = nil
	other := bare("other", url)
	other.Declaration.Networks = []link.Network{{
		ID: "lab", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")},
		Origin: link.Origin{Declaration: "other", File: "Corefile", Line: 1},
	}}
	type opened struct {
		n   *Node
		err error
	}
	all := make(chan opened)
	for _, c := range []Config{same, same, other} {
		go func() {
			n, err := Open(context.Background(), c)
			all <- opened{n, err}
		}()
	}
	var nodes []*Node
	for range 3 {
		o := <-all
		if o.err != nil {
			t.Fatal(o.err)
		}
		defer closeNode(t, o.n)
		nodes = append(nodes, o.n)
	}
	for _, n := range nodes {
		waitFor(t, "both declarations", func() bool { return n.Snapshot().Revision() == 2 })
		if s := n.Snapshot(); s.Network("corp") == nil || s.Network("lab") == nil || s.Endpoint("e0") == nil {
			t.Error("objects are missing")
		}
	}
	for _, n := range nodes {
		if n.config.Declaration.Declaration != "other" {
			continue
		}
		without := other
		without.Declaration.Networks = nil
		commit(t, n, without)
	}
	waitFor(t, "the other's network to be gone", func() bool { return nodes[0].Snapshot().Network("lab") == nil })
	if s := nodes[0].Snapshot(); s.Network("corp") == nil || s.Revision() != 3 {
		t.Errorf("revision %d", s.Revision())
	}
	// A name that is taken is refused, with the object.
	takes := other
	takes.Declaration.Networks = []link.Network{{ID: "corp", Prefixes: other.Declaration.Networks[0].Prefixes, Origin: other.Declaration.Networks[0].Origin}}
	var about *link.ObjectError
	if n, err := Open(t.Context(), takes); !errors.As(err, &about) || about.ID != "corp" {
		t.Errorf("%v, %v", n, err)
	}
}

// D25, X35: without the cluster a node starts, carries nothing and knows nothing; when the cluster is
// there it becomes live by itself, with its declaration.
func TestStartWithoutACluster(t *testing.T) {
	w, url := newWire(t, startEtcd(t))
	w.cut()
	port := freeport.Get(t)
	c := onEtcd(config(t, "", port, echo(t), "127.77.0.5"), url)
	c.Stale = policy.Limits{Bound: 30 * time.Second, Strict: true}
	n := open(t, c)
	defer closeNode(t, n)
	if n.Snapshot() != nil {
		t.Fatal("a snapshot without a state")
	}
	if _, err := n.Store().Load(t.Context()); err == nil {
		t.Error("the store can be read")
	}
	if got, err := ask("127.77.0.5", port); err == nil {
		t.Errorf("a flow is carried: %q", got)
	}
	t.Run("a reload meanwhile", func(t *testing.T) {
		p, err := n.Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context()); err == nil {
			t.Error("it says that it is in force")
		}
	})
	w.mend()
	waitFor(t, "the node to be live", func() bool { return n.Snapshot() != nil && n.Published("sql") })
	dial(t, "127.77.0.5", port)
	if s := n.Stale(true); s != "" {
		t.Error(s)
	}
}

// X35, S10: packets to the cluster are swallowed. The view gets late, then stale, then a strict node cuts
// its flows; a reload can't be stored and is owed. When the cluster is back all of it comes right by itself.
func TestClusterIsSilent(t *testing.T) {
	direct, port := startEtcd(t), freeport.Get(t)
	w, url := newWire(t, direct)
	c := onEtcd(config(t, "", port, echo(t), "127.77.0.5"), url)
	c.Stale = policy.Limits{Bound: 5 * time.Second, Strict: true}
	n := open(t, c)
	defer closeNode(t, n)
	elsewhere := open(t, bare("elsewhere", direct))
	defer closeNode(t, elsewhere)
	live := dial(t, "127.77.0.5", port)

	w.cut()
	waitFor(t, "the view to be late", func() bool { return n.Freshness().Level(false) >= policy.Late })
	dial(t, "127.77.0.5", port)
	next := c
	next.Declaration.Services = []link.Service{c.Declaration.Services[0]}
	next.Declaration.Services[0].MaxConnections = 7
	p, err := n.Prepare(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := p.Commit(short); err == nil {
		t.Error("a reload says that it is in force while the cluster is away")
	}
	waitFor(t, "the view to be stale", func() bool { return n.Stale(false) != "" })
	wantRefused(t, "127.77.0.5", port)
	if err := live.ping(); err != nil {
		t.Errorf("a live flow at the bound: %v", err)
	}
	live.cutWithin(t, 15*time.Second)
	if age := n.Freshness().Age; age < 2*c.Stale.Bound {
		t.Errorf("cut at an age of %v", age)
	}

	w.mend()
	began := time.Now()
	waitFor(t, "the view to be fresh", func() bool { return n.Stale(true) == "" })
	t.Logf("fresh %v after the cluster is back", time.Since(began))
	dial(t, "127.77.0.5", port)
	waitFor(t, "the reload to be in force", func() bool { return n.Snapshot().Service("sql").MaxConnections == 7 })
	waitFor(t, "the reload to be seen elsewhere", func() bool { return elsewhere.Snapshot().Service("sql").MaxConnections == 7 })
}
