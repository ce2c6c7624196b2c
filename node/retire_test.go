//go:build linux

package node

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/store"
)

// TestLentWaits (P13): a state isn't lent under a call that reads it; who waits for too long goes on with it. While it is lent every
// call says so, and what was confirmed last is known.
func TestLentWaits(t *testing.T) {
	c := config(t, filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t), "127.77.0.31")
	l, err := newLent(t.Context(), func(ctx context.Context) (store.Store, error) { return c.State.Open(ctx, nil, nil) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.begin(); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.lend(over); err == nil {
		t.Fatal("lent under a call")
	}
	if _, err := l.Load(t.Context()); err != nil {
		t.Error("after a lending that failed: ", err)
	}
	lent := make(chan error, 1)
	go func() { lent <- l.lend(t.Context()) }()
	l.done()
	if err := <-lent; err != nil {
		t.Fatal(err)
	}
	_, load := l.Load(t.Context())
	_, commit := l.Commit(t.Context(), nil, store.Entry{})
	calls := map[string]error{"load": load, "commit": commit, "backup": l.Backup(t.Context(), io.Discard)}
	for _, err := range l.Audit(t.Context(), 1) {
		calls["audit"] = err
	}
	for _, err := range l.Lines(t.Context(), 1) {
		calls["lines"] = err
	}
	for what, err := range calls {
		if !errors.Is(err, errLent) {
			t.Errorf("%s while lent: %v", what, err)
		}
	}
	if len(calls) != 5 || l.Confirmed().IsZero() {
		t.Errorf("%d calls, confirmed %v", len(calls), l.Confirmed())
	}
	if err := l.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Load(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRetire (P13): behind another process a node tells of its flows, ends those that the other one doesn't allow, and all of
// them when it is gone: nobody could revoke them.
func TestRetire(t *testing.T) {
	const address = "127.77.0.32"
	port := freeport.Get(t)
	n := open(t, config(t, filepath.Join(t.TempDir(), "state.db"), port, echo(t), address))
	defer closeNode(t, n)
	at := net.JoinHostPort(address, strconv.Itoa(int(port)))
	flows := map[string]net.Conn{} // by source
	for range 2 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(15 * time.Second))
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		flows[c.LocalAddr().String()] = c
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := succession.NewConn(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	heir, err := succession.NewConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	if n.Hurry() {
		t.Error("hurried before it was retired")
	}
	n.Retire(mine, false)
	if !n.Hurry() {
		t.Error("not to be hurried")
	}
	heir.SetReadDeadline(time.Now().Add(15 * time.Second))
	ids := map[string]string{} // by source
	for len(ids) < len(flows) {
		m, _, err := heir.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Flows {
			ids[f.Source.String()] = f.ID
		}
	}
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it still accepts")
	}
	ends := func(c net.Conn) {
		t.Helper()
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a flow goes on: %v", err)
		}
	}
	cut := ""
	for source, c := range flows {
		if ids[source] == "" {
			t.Fatalf("%s isn't among %v", source, ids)
		}
		if cut == "" {
			cut = source
			if err := heir.Send(succession.Message{Kind: succession.Cut, IDs: []string{ids[source]}}); err != nil {
				t.Fatal(err)
			}
			ends(c)
			continue
		}
		if _, err := io.WriteString(c, "y"); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("a flow that is allowed: %v", err)
		}
		heir.Close()
		ends(c)
	}
}
