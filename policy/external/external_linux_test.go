package external

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

func TestAnswers(t *testing.T) {
	w := start(t, config("obeys"))
	if a := w.ask(t, "allow"); !a.Allow || a.Rule != "policy test" {
		t.Errorf("allow: %+v", a)
	}
	if a := w.ask(t, "escape"); a.Reason != policy.PolicyDenied || a.Rule != `policy test: no\n\x1b[31mlevel=info \u202e` {
		t.Errorf("deny: %+v", a)
	}
	for _, do := range []string{"panic", "big"} {
		if a := w.ask(t, do); a.Allow || a.Reason != policy.PolicyError || len(a.Rule) > 300 {
			t.Errorf("%s: %+v", do, a)
		}
	}
	if n := w.count(t, "decisions_total", ""); n != 4 {
		t.Errorf("%v decisions were counted", n)
	}
	if w.count(t, "up", "") != 1 {
		t.Error("it isn't up")
	}
}

// TestRefusedAtStart: G01 and G02.
func TestRefusedAtStart(t *testing.T) {
	dir := t.TempDir()
	plain, missing := filepath.Join(dir, "plain"), filepath.Join(dir, "missing")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(kind string, edit func(*Config)) Config {
		c := config(kind)
		edit(&c)
		return c
	}
	for _, tc := range []struct {
		name string
		c    Config
		is   error
		says string
	}{
		{"G01 missing", with("obeys", func(c *Config) { c.Path = missing }), fs.ErrNotExist, missing},
		{"G01 not executable", with("obeys", func(c *Config) { c.Path = plain }), fs.ErrPermission, plain},
		{"G01 directory", with("obeys", func(c *Config) { c.Path = dir }), nil, "not a regular file"},
		{"G01 relative", with("obeys", func(c *Config) { c.Path = "obeys" }), nil, "absolute"},
		{"G01 checksum", with("obeys", func(c *Config) { c.Checksum[31] ^= 1 }), nil, "its SHA-256 is"},
		{"G01 user", with("obeys", func(c *Config) { c.User = "no-such-user" }), nil, "no-such-user"},
		{"G01 file that it may read", with("obeys", func(c *Config) { c.Files = []string{missing} }), nil, missing},
		{"G02 exits at once", config("exits"), nil, `exit status 3; it printed: no licence\x1b[2J found`},
		{"G02 garbage", config("garbage"), nil, `it printed: Hello, \x1b]0;world\a`},
		{"G02 one endless line", config("endless"), nil, "xxxx"},
		{"G02 an address elsewhere", config("elsewhere"), nil, "isn't a socket in its directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began, l := time.Now(), &logged{}
			p, err := Start(t.Context(), tc.c, l.logger(), nil)
			if err == nil {
				p.Close()
				t.Fatal("it was started")
			}
			var start *StartError
			if !errors.As(err, &start) || start.Name != "test" || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%#v", err)
			}
			if s := err.Error(); !strings.Contains(s, tc.says) || strings.ContainsAny(s, "\x1b\n\a") || len(s) > 6000 {
				t.Errorf("it says %q, want %q", s, tc.says)
			}
			if took := time.Since(began); took > 3*startTime/2 {
				t.Errorf("it took %s", took)
			}
		})
	}
	nothingLeft(t, 0)
}

// TestLongTemporary: the longest directory for temporary files that is taken works, and one more byte is said.
func TestLongTemporary(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	exact := filepath.Join(base, strings.Repeat("y", maxTemp-len(base)-1))
	long := exact + "y"
	for _, dir := range []string{exact, long} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(base, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", exact)
	start(t, config("obeys"))
	t.Setenv("TMPDIR", long)
	if p, err := Start(t.Context(), config("obeys"), nil, nil); err == nil {
		p.Close()
		t.Error("it was started")
	} else if !strings.Contains(err.Error(), "set TMPDIR") {
		t.Error(err)
	}
}

// TestSilentProgram: G02. One that never says its address is given up, and is gone.
func TestSilentProgram(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), config("silent"), nil, nil)
	if err == nil || !strings.Contains(err.Error(), "10s") || !strings.Contains(err.Error(), "godot") {
		t.Errorf("%v", err)
	}
}

// nothingLeft: the directories of programs are those of so many that run.
func nothingLeft(t *testing.T, running int) {
	t.Helper()
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), placePattern))
	mine := 0
	for _, dir := range left {
		if st, err := os.Stat(dir); err == nil && st.ModTime().After(begun) {
			mine++
		}
	}
	if mine > running {
		t.Errorf("of %d programs are left %q", running, left)
	}
}

var begun = time.Now()

// TestHang: G03. A thousand questions that are never answered are all refused, in the time that one takes, and
// the next is answered.
func TestHang(t *testing.T) {
	w := start(t, config("obeys"))
	var all sync.WaitGroup
	began := time.Now()
	for range 1000 {
		all.Go(func() {
			if a := w.Authorize(t.Context(), about("hang")); a.Allow || a.Reason != policy.PolicyError {
				t.Errorf("%+v", a)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 20*w.config.Timeout {
		t.Errorf("a thousand took %s", took)
	}
	if w.count(t, "decisions_total", "timeout") == 0 || w.count(t, "decisions_total", "busy") == 0 {
		t.Errorf("timeout %v, busy %v", w.count(t, "decisions_total", "timeout"), w.count(t, "decisions_total", "busy"))
	}
	until(t, "an answer", func() bool { return w.ask(t, "allow").Allow })
}

// TestCrash: G04.
func TestCrash(t *testing.T) {
	w := start(t, config("obeys"))
	first := w.says(t, "pid")
	if a := w.ask(t, "crash"); a.Allow || a.Reason != policy.PolicyError {
		t.Errorf("%+v", a)
	}
	until(t, "another run", func() bool { return w.count(t, "restarts_total", "") == 1 && w.count(t, "up", "") == 1 })
	if second := w.says(t, "pid"); second == first {
		t.Errorf("process %s answers still", second)
	}
	if l := w.log.String(); !strings.Contains(l, "exit status 9") || !strings.Contains(l, "runs again") {
		t.Errorf("the log says %s", l)
	}
}

// TestNonsense: G05. What makes no sense refuses; a field that isn't known is ignored.
func TestNonsense(t *testing.T) {
	w := start(t, config("lies"))
	for do, says := range map[string]string{"empty": errEmpty.Error(), "both": errBoth.Error(), "unknown": errEmpty.Error()} {
		if a := w.ask(t, do); a.Allow || a.Reason != policy.PolicyError || !strings.HasSuffix(a.Rule, says) {
			t.Errorf("%s: %+v", do, a)
		}
	}
	if a := w.ask(t, "allow"); !a.Allow {
		t.Errorf("%+v", a)
	}
	if d := w.Review(t.Context(), policy.Review{Network: aNetwork, Service: anService, Endpoint: anEnd}); d.State != link.Approved {
		t.Errorf("a program that isn't asked for reviews says %+v", d)
	}
}

// TestSlow: G10. A program that needs 240 ms is asked by a thousand a second: all have an answer in bounded time,
// and afterwards it answers as before.
func TestSlow(t *testing.T) {
	w := start(t, config("obeys"))
	var all sync.WaitGroup
	var mu sync.Mutex
	allowed, worst := 0, time.Duration(0)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		<-tick.C
		for range 10 {
			all.Go(func() {
				began := time.Now()
				a := w.Authorize(t.Context(), about("slow"))
				took := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				worst = max(worst, took)
				if a.Allow {
					allowed++
				} else if a.Reason != policy.PolicyError {
					t.Errorf("%+v", a)
				}
			})
		}
	}
	all.Wait()
	t.Logf("%d of 2000 allowed, the slowest answer took %s", allowed, worst)
	if worst > 20*w.config.Timeout {
		t.Errorf("an answer took %s", worst)
	}
	until(t, "an answer", func() bool { return w.ask(t, "allow").Allow })
}

// TestKept: an answer is kept as the program says, for the same question, and not over a restart.
func TestKept(t *testing.T) {
	w := start(t, config("obeys"))
	if one, two := w.says(t, "count"), w.says(t, "count"); one != "1" || two != "1" {
		t.Errorf("%s, then %s", one, two)
	}
	for name, edit := range map[string]func(q *policy.Question){
		"another source":   func(q *policy.Question) { q.Request.Source = mustAddrPort("10.1.2.4:40000") },
		"another endpoint": func(q *policy.Question) { e := *anEnd; e.Connection.LinkID++; q.Verdict.Endpoint = &e },
		"another revision": func(q *policy.Question) { e := *anEnd; q.Verdict.Endpoint = &e },
		"another service":  func(q *policy.Question) { v := *anService; q.Verdict.Service = &v },
		"another address":  func(q *policy.Question) { q.Request.Local = mustAddrPort("10.200.0.6:1433") },
	} {
		q := about("count")
		edit(&q)
		before := w.count(t, "cached_total", "")
		if w.Authorize(t.Context(), q); w.count(t, "cached_total", "") != before {
			t.Errorf("%s has the same answer", name)
		}
	}
	q := about("count")
	q.Flow, q.Request.Source = "f2", mustAddrPort("10.1.2.3:50000")
	if a := w.Authorize(t.Context(), q); a.Rule != "policy test: 1" {
		t.Errorf("another flow of the source: %+v", a)
	}
	w.ask(t, "crash")
	until(t, "another run", func() bool { return w.count(t, "up", "") == 1 && w.count(t, "restarts_total", "") == 1 })
	if n := w.says(t, "count"); n != "1" || w.count(t, "seconds", "") < 3 {
		t.Errorf("after the restart: %s", n)
	}
}

func TestReviews(t *testing.T) {
	c := config("obeys")
	c.Reviews = true
	w := start(t, c)
	for _, tc := range []struct {
		message string
		state   link.State
		reason  string
	}{
		{"approve", link.Approved, ""},
		{"reject", link.Rejected, "no ticket"},
		{"wait", link.Pending, "not open yet"},
		{"error", link.Pending, "the policy program has failed: Unknown: ticket system away"},
	} {
		d := w.Review(t.Context(), policy.Review{Network: aNetwork, Service: anService, Endpoint: anEnd, Message: tc.message})
		if d.State != tc.state || d.Reason != tc.reason || d.Rule != "policy test" {
			t.Errorf("%s: %+v", tc.message, d)
		}
	}
	if !w.Authorize(t.Context(), about("deny")).Allow {
		t.Error("a program that isn't asked about flows refuses one")
	}
}
