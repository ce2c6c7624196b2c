package node

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
)

// script is a control API that writes down how it is called.
type script struct {
	name    string
	refuses error
	calls   *calls
}

type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, s)
}

func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

func (s *script) Prepare(n *Node, before API) error {
	after := "nothing"
	if before != nil {
		after = before.(*script).name
	}
	s.calls.add(s.name + " prepare after " + after)
	return s.refuses
}

func (s *script) Commit()  { s.calls.add(s.name + " commit") }
func (s *script) Abandon() { s.calls.add(s.name + " abandon") }
func (s *script) Close(context.Context) error {
	s.calls.add(s.name + " close")
	return nil
}

// The calls to an API are those that its documentation promises, on every way that a configuration takes.
func TestAPI(t *testing.T) {
	path, port, target := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), backend(t, "one")
	seen, errNo := new(calls), errors.New("no such file")
	with := func(name string, refuses error) Config {
		c := config(t, path, port, target, "127.77.0.5")
		c.API = &script{name, refuses, seen}
		return c
	}
	want := func(calls ...string) {
		t.Helper()
		if got := seen.take(); !slices.Equal(got, calls) {
			t.Errorf("calls %q, want %q", got, calls)
		}
	}
	var api *APIError
	if _, err := Open(t.Context(), with("bad", errNo)); !errors.As(err, &api) || !errors.Is(err, errNo) {
		t.Fatalf("opened: %v", err)
	}
	want("bad prepare after nothing")
	clash := with("unlucky", nil)
	clash.Declaration.Endpoints[0].Endpoint.Network = "nowhere"
	var about *link.ObjectError
	if _, err := Open(t.Context(), clash); !errors.As(err, &about) {
		t.Fatalf("opened: %v", err)
	}
	want() // the declaration is looked at first

	n := open(t, with("a", nil))
	want("a prepare after nothing", "a commit")
	p, err := n.Prepare(t.Context(), with("b", nil))
	if err != nil {
		t.Fatal(err)
	}
	p.Abandon()
	want("b prepare after a", "b abandon")
	if _, err := n.Prepare(t.Context(), with("c", errNo)); !errors.As(err, &api) {
		t.Fatalf("prepared: %v", err)
	}
	want("c prepare after a")
	commit(t, n, with("d", nil))
	n.apis.ending.Wait()
	want("d prepare after a", "d commit", "a close")
	without := config(t, path, port, target, "127.77.0.5")
	commit(t, n, without)
	n.apis.ending.Wait()
	want("d close")
	commit(t, n, with("e", nil))
	want("e prepare after nothing", "e commit")
	closeNode(t, n)
	want("e close")
}

// Flows lists what the data plane carries, and what it knows of it.
func TestFlows(t *testing.T) {
	port := freeport.Get(t)
	n := open(t, config(t, filepath.Join(t.TempDir(), "state.db"), port, echo(t), "127.77.0.5"))
	defer closeNode(t, n)
	live := dial(t, "127.77.0.5", port)
	found := 0
	for f := range n.Flows() {
		found++
		if f.Endpoint != "e0" || f.Service != "sql" || f.LinkID != n.Snapshot().Endpoint("e0").Connection.LinkID ||
			f.Source.String() != live.LocalAddr().String() || f.Local.String() != live.RemoteAddr().String() ||
			f.Target != n.Snapshot().Service("sql").Targets[0].Addr || f.State != "established" || len(f.ID) != 32 ||
			f.Started.IsZero() {
			t.Errorf("%+v", f)
		}
	}
	if found != 1 {
		t.Errorf("%d flows", found)
	}
	_ = live.Close()
	waitFor(t, "the flow to be gone", func() bool {
		for range n.Flows() {
			return false
		}
		return true
	})
}
