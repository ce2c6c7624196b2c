package coremain

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestUpgradeBesideProxyProto (P13): sockets of DNS that the new process can't take over don't stay open in it, so that
// no query lands where nobody reads.
func TestUpgradeBesideProxyProto(t *testing.T) {
	t.Parallel()
	u := startUpgraded(t, func(d, to string) string {
		return strings.Replace(upgradeCorefile(d, to, "", false), " errors\n", " errors\n proxyproto {\n  allow 192.0.2.0/24\n }\n", 1)
	})
	u.upgrade()
	u.eventually("end of the process before", func() bool { return strings.Contains(u.output(), "the process before this one has ended") })
	const questions = 30 // each of another port, so that the kernel spreads them
	for i := range questions {
		c := dns.Client{Timeout: 5 * time.Second}
		if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("app.example.com.", dns.TypeA), u.dns); err != nil {
			t.Fatalf("question %d: %v\n%s", i, err, u.output())
		}
	}
}

// TestUpgradeWithoutState (P13): a new process that can't reach the state doesn't take the place of one that may have it.
func TestUpgradeWithoutState(t *testing.T) {
	t.Parallel()
	good := ""
	u := startUpgraded(t, func(d, to string) string { good = upgradeCorefile(d, to, "", false); return good })
	u.write(strings.Replace(good, "linkstore bolt state/postern.db", "linkstore etcd http://127.0.0.1:"+freePort(t), 1))
	if why := u.refused(); !strings.Contains(why, "the state can't be reached") {
		t.Errorf("refused with %q", why)
	}
	if !u.resolves() {
		t.Error("no answer")
	}
}

// TestUpgradePutsSignalsOff (P13): while the new process hangs, SIGUSR1 waits for the end of the upgrade and keeps nothing
// else from being done: SIGTERM ends the upgrade, and then the process.
func TestUpgradePutsSignalsOff(t *testing.T) {
	t.Parallel()
	u := startUpgraded(t, func(d, to string) string { return upgradeCorefile(d, to, "", false) })
	u.script(t, "exec sleep 600")
	hang := func() {
		t.Helper()
		before := u.newest()
		if err := syscall.Kill(u.pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		u.eventually("new process", func() bool { return u.newest() != before })
		for range 20 {
			if err := syscall.Kill(u.pid, syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
		}
	}
	const loads = "SIGUSR1: loading the Corefile again"
	hang()
	if err := syscall.Kill(u.newest(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	u.eventually("reload", func() bool { return strings.Contains(u.output(), loads) })
	if text := u.output(); strings.Index(text, "upgrade refused") > strings.Index(text, loads) {
		t.Error("a reload was begun during the upgrade")
	}
	hang()
	if err := syscall.Kill(u.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	u.eventually("end", func() bool { return strings.Contains(u.output(), "SIGTERM: ending") })
	if !strings.Contains(u.output(), "this process was told to end") {
		t.Errorf("the upgrade wasn't ended\n%s", u.output())
	}
}
