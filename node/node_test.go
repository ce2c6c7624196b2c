package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/internal/tcptest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

func TestMain(m *testing.M) {
	launch()
	goleak.VerifyTestMain(m)
}

// backend is a target that answers each connection with its name and closes.
func backend(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	return tcptest.Serve(t, "127.0.0.1:0", func(c *net.TCPConn) { _, _ = io.WriteString(c, name) }).Addr
}

// config is a node with one endpoint per address, all of one service on port that goes to target.
func config(t *testing.T, path string, port uint16, target netip.AddrPort, addresses ...string) Config {
	o := link.Origin{Declaration: "host", File: "Corefile", Line: 1}
	d := link.Declare{
		Declaration: "host",
		Networks: []link.Network{{
			ID: "corp", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			Pools: []netip.Prefix{netip.MustParsePrefix("127.77.0.0/24")}, Origin: o,
		}},
		Services: []link.Service{{
			ID: "sql", Alias: "alias", Port: port, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
			Targets: []link.Target{{Addr: target}}, Visible: []link.Party{"corp"}, AutoApprove: []link.Party{"corp"}, Origin: o,
		}},
	}
	for i, a := range addresses {
		d.Endpoints = append(d.Endpoints, link.DeclaredEndpoint{Endpoint: link.Endpoint{
			ID: link.ID(fmt.Sprint("e", i)), Network: "corp", Service: "sql", Address: netip.MustParseAddr(a), Origin: o,
		}})
	}
	return Config{State: Place{Bolt: path}, Declaration: d, From: "Corefile", Proxy: &proxy.Settings{}}
}

func open(t *testing.T, c Config) *Node {
	t.Helper()
	n, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func closeNode(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// ask connects to an endpoint and returns what its target says, or the error.
func ask(addr string, port uint16) (string, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, port), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func wantAnswer(t *testing.T, addr string, port uint16, want string) {
	t.Helper()
	if got, err := ask(addr, port); got != want || err != nil {
		t.Fatalf("%s:%d answers %q, %v, want %q", addr, port, got, err, want)
	}
}

func wantRefused(t *testing.T, addr string, port uint16) {
	t.Helper()
	if got, err := ask(addr, port); err == nil || got != "" {
		t.Fatalf("%s:%d answers %q, want a refusal", addr, port, got)
	}
}

func TestOpenCarriesTrafficAtOnce(t *testing.T) {
	port := freeport.Get(t)
	registry := prometheus.NewPedanticRegistry()
	c := config(t, filepath.Join(t.TempDir(), "state.db"), port, backend(t, "one"), "127.77.0.5")
	c.Registerer = registry
	n := open(t, c)
	if !n.Published("sql") || !n.Healthy("sql") {
		t.Error("Open returned before the first probe")
	}
	wantAnswer(t, "127.77.0.5", port, "one")
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
	closeNode(t, n)
	wantRefused(t, "127.77.0.5", port)
	if _, err := os.Stat(c.State.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left over: %v", err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) > 0 {
		t.Errorf("%d metrics are left over, %v", len(families), err)
	}
}

func TestReload(t *testing.T) {
	path, port := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t)
	one, two := backend(t, "one"), backend(t, "two")
	n := open(t, config(t, path, port, one, "127.77.0.5", "127.77.0.6"))
	defer closeNode(t, n)
	first := n.Snapshot().Endpoint("e0").Connection.LinkID

	t.Run("abandoned", func(t *testing.T) {
		p, err := n.Prepare(t.Context(), config(t, path, port, two, "127.77.0.5", "127.77.0.7"))
		if err != nil {
			t.Fatal(err)
		}
		before := n.Snapshot()
		p.Abandon()
		if n.Snapshot() != before {
			t.Error("the state has changed")
		}
		wantAnswer(t, "127.77.0.5", port, "one")
		wantAnswer(t, "127.77.0.6", port, "one")
		wantRefused(t, "127.77.0.7", port)
	})
	t.Run("refused", func(t *testing.T) {
		for name, c := range map[string]Config{
			"another state file": config(t, path+"2", port, two),
			"a wrong object":     config(t, path, port, two, "127.78.0.5"),
		} {
			if _, err := n.Prepare(t.Context(), c); err == nil {
				t.Errorf("%s: prepared", name)
			}
		}
		wantAnswer(t, "127.77.0.5", port, "one")
	})
	t.Run("committed", func(t *testing.T) {
		p, err := n.Prepare(t.Context(), config(t, path, port, two, "127.77.0.5", "127.77.0.7"))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, "127.77.0.5", port, "two")
		wantRefused(t, "127.77.0.6", port)
		wantAnswer(t, "127.77.0.7", port, "two")
		if id := n.Snapshot().Endpoint("e0").Connection.LinkID; id != first {
			t.Errorf("link ID %s, before the reload %s", id, first)
		}
	})
	t.Run("without a data plane and back", func(t *testing.T) {
		c := config(t, path, port, two, "127.77.0.5")
		c.Proxy = nil
		commit(t, n, c)
		wantRefused(t, "127.77.0.5", port)
		if !n.Published("nothing") {
			t.Error("a node without a data plane can't know what is published, and says no")
		}
		commit(t, n, config(t, path, port, two, "127.77.0.5"))
		wantAnswer(t, "127.77.0.5", port, "two")
	})
}

func commit(t *testing.T, n *Node, c Config) {
	t.Helper()
	p, err := n.Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRestartKeepsNames: a restart beside dead targets doesn't let a name that was answered pass.
func TestRestartKeepsNames(t *testing.T) {
	path, port := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t)
	target := backend(t, "one")
	n := open(t, config(t, path, port, target, "127.77.0.5"))
	revision, id := n.Snapshot().Revision(), n.Snapshot().Endpoint("e0").Connection.LinkID
	closeNode(t, n)

	c := config(t, path, port, target, "127.77.0.5")
	c.Declaration.Services[0].Targets = []link.Target{{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.78.0.250"), 1)}} // nobody there
	n = open(t, c)
	if !n.Published("sql") || n.Healthy("sql") {
		t.Errorf("published %v, healthy %v, want true and false", n.Published("sql"), n.Healthy("sql"))
	}
	closeNode(t, n)

	n = open(t, config(t, path, port, target, "127.77.0.5"))
	defer closeNode(t, n)
	if got := n.Snapshot().Endpoint("e0").Connection.LinkID; got != id {
		t.Errorf("link ID %s after two restarts, before %s", got, id)
	}
	if got := n.Snapshot().Revision(); got != revision+2 {
		t.Errorf("revision %d, want %d: one commit for each change and none where there is none", got, revision+2)
	}
}

func TestOpenRefusals(t *testing.T) {
	path, port := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t)
	target := backend(t, "one")
	held := open(t, config(t, path, port, target, "127.77.0.5"))
	defer closeNode(t, held)
	var about *link.ObjectError
	if _, err := Open(t.Context(), config(t, path, port, target)); !errors.Is(err, store.ErrLocked) {
		t.Errorf("S01, a second node on the state: %v, want %v", err, store.ErrLocked)
	}
	if _, err := Open(t.Context(), config(t, path+"2", port, target, "127.99.0.1")); !errors.As(err, &about) {
		t.Errorf("a wrong object: %v, want an error about it", err)
	}
	if _, err := Open(t.Context(), config(t, path+"3", port, target, "127.77.0.5")); err == nil || !strings.Contains(err.Error(), "127.77.0.5") {
		t.Errorf("an address in use: %v, want an error that names it", err)
	}
	// What was refused has left no trace in the state, where it would have taken link IDs.
	after := open(t, config(t, path+"3", freeport.Get(t), target, "127.77.0.6"))
	defer closeNode(t, after)
	if r := after.Snapshot().Revision(); r != 1 {
		t.Errorf("revision %d after a refused start and a good one, want 1", r)
	}
}

func TestBackupAndRestore(t *testing.T) {
	path, port := filepath.Join(t.TempDir(), strings.Repeat("long-", 30), "state.db"), freeport.Get(t) // longer than a socket path may be
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	n := open(t, config(t, path, port, backend(t, "one"), "127.77.0.5", "127.77.0.6"))
	defer closeNode(t, n)
	client := Client(SocketPath(path))
	get, err := client.Get("http://node/backup")
	if err != nil {
		t.Fatal(err)
	}
	backup, err := io.ReadAll(get.Body)
	_ = get.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(SocketPath(path))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v, want 0600", info.Mode(), err)
	}

	// Something that the backup doesn't have, made beside the Corefile.
	guest := link.Endpoint{ID: "guest", Network: "corp", Service: "sql", Address: netip.MustParseAddr("127.77.0.9")}
	if _, err := store.Update(t.Context(), n.store, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{At: time.Now(), Actor: "test", Action: "request"}, []link.Change{link.PutEndpoint{Endpoint: guest}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the guest's endpoint to carry traffic", func() bool { got, _ := ask("127.77.0.9", port); return got == "one" })

	for name, tt := range map[string]struct {
		body   []byte
		status int
	}{
		"cut":    {backup[:len(backup)-1], http.StatusBadRequest},
		"empty":  {nil, http.StatusBadRequest},
		"sound":  {backup, http.StatusOK},
		"doubly": {backup, http.StatusOK},
	} {
		post, err := client.Post("http://node/restore", "application/octet-stream", bytes.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		var body map[string]any
		if err := json.NewDecoder(post.Body).Decode(&body); err != nil || post.StatusCode != tt.status {
			t.Errorf("%s: status %d, body %v, %v, want %d", name, post.StatusCode, body, err, tt.status)
		}
		_ = post.Body.Close()
	}
	if n.Snapshot().Endpoint("guest") != nil {
		t.Error("the guest's endpoint is in the restored state")
	}
	wantRefused(t, "127.77.0.9", port)
	wantAnswer(t, "127.77.0.6", port, "one")
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestDrainEndsInTime(t *testing.T) {
	path, port := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t)
	n := open(t, config(t, path, port, backend(t, "one"), "127.77.0.5"))
	defer closeNode(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n.Drain(ctx)
	if ctx.Err() != nil {
		t.Error("a node without flows took its whole drain time")
	}
	wantRefused(t, "127.77.0.5", port)
}

// TestOwedIsPaid: a revocation that couldn't be stored at the reload takes place when the store can
// take it, and one that another reload has overtaken does not.
func TestOwedIsPaid(t *testing.T) {
	path, port := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t)
	good := config(t, path, port, backend(t, "one"), "127.77.0.5")
	revoked := config(t, path, port, good.Declaration.Services[0].Targets[0].Addr, "127.77.0.5")
	revoked.Declaration.Services[0].AutoApprove = nil
	n := open(t, good)
	defer closeNode(t, n)
	fault := &storetest.Fault{Store: n.store}
	n.store = fault
	reload := func(c Config, outcomes ...storetest.Outcome) error {
		fault.Plan(outcomes...)
		p, err := n.Prepare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return p.Commit(t.Context())
	}
	state := func() link.State { return n.Snapshot().Endpoint("e0").Connection.State }

	if err := reload(revoked, storetest.Refuse, storetest.Refuse); err == nil {
		t.Fatal("the reload says that it is in force")
	}
	if s := state(); s != link.Approved {
		t.Errorf("state %s after a commit that failed, want it as it was", s)
	}
	waitFor(t, "the revocation", func() bool { return state() == link.Pending })
	wantRefused(t, "127.77.0.5", port)

	if err := reload(good); err != nil {
		t.Fatal(err)
	}
	if err := reload(revoked, storetest.Refuse); err == nil {
		t.Fatal("the reload says that it is in force")
	}
	if err := reload(good); err != nil {
		t.Fatal(err)
	}
	n.paying.Wait() // what was overtaken has nothing left to do
	if s := state(); s != link.Approved {
		t.Errorf("state %s: an overtaken configuration came back", s)
	}
}
