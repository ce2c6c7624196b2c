package coremain

import (
	"strings"
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
