package coremain

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/node/succession"
)

// recordedBegin returns the message with which a process of an older version begins, as it was written down. It has no socket of a
// service manager here.
func recordedBegin(t *testing.T) string {
	t.Helper()
	f, err := os.Open("../node/succession/testdata/protocol-2.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), `{"kind":"begin",`) {
			text, _, _ := strings.Cut(lines.Text(), `,"sandbox"`)
			return text + "}"
		}
	}
	t.Fatal("no message begins")
	return ""
}

// TestUpgradeFromOtherVersion (P13): the program takes the place of a process that says what an older version said, which knows nothing of flows of
// UDP; and of none that speaks another protocol, older or newer: it says why, and ends.
func TestUpgradeFromOtherVersion(t *testing.T) {
	t.Parallel()
	begin := recordedBegin(t)
	for name, tt := range map[string]struct {
		begin string
		kind  succession.Kind
		why   string
	}{
		"as recorded": {begin, succession.Claim, ""},
		"older":       {strings.Replace(begin, `"protocol":2`, `"protocol":1`, 1), succession.Failed, "version 0.9.0 hands over in another way than this one takes"},
		"newer":       {strings.Replace(begin, `"protocol":2`, `"protocol":3`, 1), succession.Failed, "version 0.9.0 hands over in another way than this one takes"},
		"no number":   {strings.Replace(begin, `"protocol":2,`, ``, 1), succession.Failed, "hands over in another way"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, port := t.TempDir(), freePort(t)
			if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(upgradeCorefile(port, echo(t), "", false)), 0o600); err != nil {
				t.Fatal(err)
			}
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(fds[0], []byte(tt.begin)); err != nil {
				t.Fatal(err)
			}
			old, err := succession.NewConn(fds[0])
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := programAt(ctx, self, dir)
			other := os.NewFile(uintptr(fds[1]), "succession")
			cmd.ExtraFiles = []*os.File{other}
			cmd.Env = append(cmd.Env, "POSTERN_SUCCEEDS=3")
			cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			other.Close()
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
			}()
			old.SetReadDeadline(time.Now().Add(40 * time.Second))
			says := func(kind succession.Kind) succession.Message {
				t.Helper()
				m, _, err := old.Receive()
				if err != nil || m.Kind != kind {
					t.Fatalf("%+v, %v: want %q", m, err, kind)
				}
				return m
			}
			m := says(tt.kind)
			if tt.kind == succession.Failed {
				if !strings.Contains(m.Why, tt.why) {
					t.Errorf("it says %q", m.Why)
				}
				if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
					t.Errorf("it ends with %v", err)
				}
				return
			}
			if m.Protocol != succession.Protocol {
				t.Errorf("it claims with protocol %d", m.Protocol)
			}
			if err := old.Send(succession.Message{Kind: succession.Granted}); err != nil {
				t.Fatal(err)
			}
			if m := says(succession.Ready); m.Hands != succession.Hands {
				t.Errorf("%+v", m)
			}
			c := dns.Client{Timeout: 10 * time.Second}
			if r, _, err := c.Exchange(new(dns.Msg).SetQuestion("app.example.com.", dns.TypeA), "127.0.0.1:"+port); err != nil || len(r.Answer) != 1 {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
}

// TestUpgradeToOtherVersion (P13): a process goes on as before where the one that it has started speaks another protocol, whichever of
// the two says so.
func TestUpgradeToOtherVersion(t *testing.T) {
	t.Parallel()
	u := startUpgraded(t, func(d, to string) string { return upgradeCorefile(d, to, "", false) })
	flow, err := u.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	for _, tt := range []struct{ says, want string }{
		{`{"kind":"failed","why":"version 1 hands over in another way than this one takes; restart it"}`, "the new process: version 1 hands over in another way"},
		{`{"kind":"claim","protocol":3}`, "the new process takes over in another way (3) than this one hands over (2); restart it"},
		{`{"kind":"unheard-of"}`, `the new process says "unheard-of" instead of "claim"`},
	} {
		u.script(t, "echo '"+tt.says+"' >&3; exec sleep 600")
		if why := u.refused(); !strings.Contains(why, tt.want) {
			t.Errorf("refused with %q, want %q", why, tt.want)
		}
		if err := says(flow, "still there"); err != nil || !u.resolves() {
			t.Errorf("after %s: %v, or no answer", tt.says, err)
		}
	}
	// What an older version claims with is no number, and that is this protocol.
	u.script(t, `echo '{"kind":"claim"}' >&3; echo '{"kind":"failed","why":"no more than that"}' >&3; exec sleep 600`)
	if why := u.refused(); !strings.Contains(why, "no more than that") {
		t.Errorf("refused with %q", why)
	}
}
