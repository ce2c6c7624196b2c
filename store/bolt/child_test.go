package bolt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// The test binary runs itself as another process when this names what to do.
const childEnv = "POSTERN_BOLT_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := runChild(what, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func runChild(what, path string) error {
	switch what {
	case "hold":
		return childHold(path)
	case "commit":
		return childCommit(path)
	}
	if f := diskChildren[what]; f != nil {
		return f(path)
	}
	return fmt.Errorf("no child %q", what)
}

// child returns the command that runs this binary as a child with the state file at path.
func child(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, path)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// started starts a child whose standard output is the returned reader; input, unless nil, stays open.
func started(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(out)
}

// childHold opens the store and keeps it until its input ends.
func childHold(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, s.Close())
}

func TestS01Locked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	cmd := child(t, "hold", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := started(t, cmd)
	if line, err := out.ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	start := time.Now()
	_, err = Open(path, Options{})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v, want less than 2 s", took)
	}
	if !errors.Is(err, store.ErrLocked) {
		t.Fatalf("%v, want ErrLocked", err)
	}
	for _, word := range []string{path, "process " + strconv.Itoa(cmd.Process.Pid)} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q doesn't say %q", err, word)
		}
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, path))
}

// TestS01SameProcess: a second store in the process that has the first is one too many as well.
func TestS01SameProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, path)
	if _, err := Open(path, Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	mustCommit(t, s, 1)
	mustClose(t, s)
}

// The state that childCommit makes: commit r writes two networks whose tenant is r, and every
// tenth commit deletes a third. What the state must be follows from the revision alone.
const pairs = 25

func changesOf(r uint64) []link.Change {
	a, b := storetest.Network(int(r%pairs)), storetest.Network(int(r%pairs)+1000)
	a.Tenant, b.Tenant = fmt.Sprint(r), fmt.Sprint(r)
	changes := []link.Change{link.PutNetwork{Network: a}, link.PutNetwork{Network: b}}
	if r%10 == 0 && r > pairs {
		// A pair other than that of r: both or neither are gone.
		changes = append(changes,
			link.DeleteNetwork{ID: storetest.Network(int((r + 1) % pairs)).ID},
			link.DeleteNetwork{ID: storetest.Network(int((r+1)%pairs) + 1000).ID})
	}
	return changes
}

// childCommit commits until it is killed, and writes each revision after its commit returned.
func childCommit(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	snap := s.current.Load()
	for range 100_000 {
		r := snap.Revision() + 1
		e := storetest.Entry(int(r))
		e.ID = fmt.Sprintf("commit-%d", r)
		if snap, err = s.Commit(context.Background(), snap, e, changesOf(r)...); err != nil {
			return err
		}
		if _, err := fmt.Println(r); err != nil {
			return err
		}
	}
	return errors.New("nobody killed me")
}

// TestS06Killed kills a committing process again and again, until a thousand commits were acknowledged.
func TestS06Killed(t *testing.T) {
	const commits, maxLives = 1000, 60
	seed := rand.Uint64()
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 6))
	path := filepath.Join(t.TempDir(), "state")
	model, lives := link.Empty(), 0
	for ; model.Revision() < commits && lives < maxLives; lives++ {
		acknowledged := liveAndDie(t, path, rng.IntN(2*commits/20), model.Revision())
		s := mustOpen(t, path)
		got := s.current.Load()
		if r := got.Revision(); r < acknowledged || r > acknowledged+1 {
			t.Fatalf("life %d: revision %d, the last acknowledged was %d", lives, r, acknowledged)
		}
		for model.Revision() < got.Revision() {
			var err error
			r := model.Revision() + 1
			if model, _, err = model.Apply(storetest.Entry(int(r)).At, changesOf(r)...); err != nil {
				t.Fatal(err)
			}
		}
		want := storetest.Dump(t, model)
		if have := storetest.Dump(t, got); strings.Join(have, "\n") != strings.Join(want, "\n") {
			t.Fatalf("life %d: revision %d holds %q, want %q", lives, got.Revision(), have, want)
		}
		_, lines := dump(t, s)
		for i, e := range lines {
			if e.ID != fmt.Sprintf("commit-%d", i+1) {
				t.Fatalf("life %d: entry %d is %q", lives, i+1, e.ID)
			}
		}
		if uint64(len(lines)) != got.Revision() {
			t.Fatalf("life %d: %d entries at revision %d", lives, len(lines), got.Revision())
		}
		mustClose(t, s)
	}
	t.Logf("%d commits in %d lives", model.Revision(), lives)
	if model.Revision() < commits {
		t.Errorf("only %d commits in %d lives", model.Revision(), lives)
	}
}

// liveAndDie runs a committing child, kills it once it has acknowledged n commits or soon after, and
// returns the last revision that it acknowledged, at least last.
func liveAndDie(t *testing.T, path string, n int, last uint64) uint64 {
	t.Helper()
	cmd := child(t, "commit", path)
	out := started(t, cmd)
	for i := 0; ; i++ {
		if i == n { // the child goes on until the signal is there
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		line, err := out.ReadString('\n')
		if err != nil { // the pipe holds what was written before the child died
			break
		}
		if last, err = strconv.ParseUint(strings.TrimSpace(line), 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child wasn't killed: %v", err)
	}
	return last
}
