package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
	"github.com/postern-link/postern/policy/policyplugin"
)

// gate is a policy program that does what its argument says.
type gate struct {
	policyplugin.Base
	word string
}

func (g gate) Authorize(ctx context.Context, _ *policyplugin.Flow) (policyplugin.Verdict, error) {
	switch g.word {
	case "allow":
		return policyplugin.Allow(), nil
	case "hang":
		<-ctx.Done()
	}
	return policyplugin.Deny("says " + g.word), nil
}

// launch makes this binary a policy program where it was started as one.
func launch() {
	external.Launch()
	if os.Getenv(policyplugin.Handshake.MagicCookieKey) != "" {
		policyplugin.Serve(gate{word: os.Args[1]})
	}
}

// with returns a configuration with a policy whose program does what the word says.
func with(t *testing.T, c Config, word string) Config {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Policies = []Policy{{
		Set:     policy.Set{Name: "gate"},
		Program: &external.Config{Name: "gate", Path: path, Args: []string{word}, Checksum: sha256.Sum256(body), Memory: -1},
	}}
	return c
}

// TestPolicyPrograms: programs are kept, replaced, refused and ended with the configurations that have them.
func TestPolicyPrograms(t *testing.T) {
	path, port, target := filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t)
	plain := config(t, path, port, target, "127.77.0.5")
	n := open(t, with(t, plain, "allow"))
	defer closeNode(t, n)
	first := n.Policy().Sets[0].Program
	flow := dial(t, "127.77.0.5", port)

	commit(t, n, with(t, plain, "allow"))
	if n.Policy().Sets[0].Program != first {
		t.Error("a program whose configuration is the same was replaced")
	}

	// G01, at a reload: what was in force stays so.
	wrong := with(t, plain, "allow")
	wrong.Policies[0].Program.Path = "/no/such/program"
	var refused *PolicyError
	if _, err := n.Prepare(t.Context(), wrong); !errors.As(err, &refused) || refused.Name != "gate" || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Prepare: %v", err)
	}
	abandoned, err := n.Prepare(t.Context(), with(t, plain, "deny"))
	if err != nil {
		t.Fatal(err)
	}
	abandoned.Abandon()
	if n.Policy().Sets[0].Program != first {
		t.Error("what didn't come into force replaced a program")
	}

	// G03: a program that hangs lets nobody in, and cuts nobody.
	commit(t, n, with(t, plain, "hang"))
	wantRefused(t, "127.77.0.5", port)
	waitFor(t, "the end of asking", func() bool { n.asking.Wait(); return true })
	if err := flow.ping(); err != nil {
		t.Errorf("a live flow under a program that hangs: %v", err)
	}

	// Another program says no: the flow that was let in before goes.
	commit(t, n, with(t, plain, "deny"))
	flow.cutWithin(t, 10*time.Second)
	wantRefused(t, "127.77.0.5", port)

	// Without a policy all is as the state says.
	commit(t, n, plain)
	if n.Policy() != nil {
		t.Errorf("a policy is left: %+v", n.Policy())
	}
	again := dial(t, "127.77.0.5", port)
	if a := first.Authorize(t.Context(), policy.Question{}); a.Allow {
		t.Error("a program of a configuration that has gone answers")
	}
	_ = again.Close()
}

// TestRefusedProgram: G01, at the start. Nothing is left of a node that wasn't opened.
func TestRefusedProgram(t *testing.T) {
	c := with(t, config(t, filepath.Join(t.TempDir(), "state.db"), freeport.Get(t), echo(t), "127.77.0.5"), "allow")
	c.Policies[0].Program.Checksum[0] ^= 1
	var refused *PolicyError
	if _, err := Open(t.Context(), c); !errors.As(err, &refused) {
		t.Fatal(fmt.Sprint("Open: ", err))
	}
	c.Policies[0].Program.Checksum[0] ^= 1
	closeNode(t, open(t, c))
}
