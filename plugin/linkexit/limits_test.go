package linkexit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/plugin/privatelink"
)

// TestRate: so many a second and that many at once, against a bucket of tokens that is reckoned in fractions.
func TestRate(t *testing.T) {
	const perSecond, burst = 20, 5
	r := newRates(perSecond, burst)
	rnd := rand.New(rand.NewPCG(1, 2))
	tokens, last, now := float64(burst), int64(0), int64(0)
	for i := range 20000 {
		now += rnd.Int64N(int64(100 * time.Millisecond))
		if i%500 == 0 {
			now += int64(3 * time.Second)
		}
		tokens = min(burst, tokens+float64(now-last)*perSecond/1e9)
		last = now
		ok, _ := r.take(1, now)
		if want := tokens >= 1; ok != want && (tokens < 0.999 || tokens > 1.001) {
			t.Fatalf("query %d: %v with %f tokens", i, ok, tokens)
		}
		if ok {
			tokens--
		}
	}
}

// TestRateOfOthers: who floods takes nothing from others, IPv6 hosts are their /64, and the same address in another
// network is another client.
func TestRateOfOthers(t *testing.T) {
	w := newWorld(t, nil, func(s *settings) { open(s); s.rate = [2]int{1, 10} })
	ask := func(network string, client string) bool {
		return w.ask(t, linkID(network), client, question("www.example.com A")).Rcode == dns.RcodeSuccess
	}
	for range 100 {
		ask("corp", "10.1.0.9")
		ask("corp", "fd00::1")
	}
	if ask("corp", "10.1.0.9") || ask("corp", "fd00::2") {
		t.Error("the client that floods isn't held")
	}
	if !ask("corp", "10.1.0.10") || !ask("corp", "fd00:0:0:1::1") || !ask("lab", "10.1.0.9") {
		t.Error("another client is held")
	}
	if n := strings.Count(w.lines.String(), "over its limit"); n != 2 {
		t.Errorf("%d lines for two clients:\n%s", n, w.lines)
	}
}

// TestTXT: TXT has a rate of its own.
func TestTXT(t *testing.T) {
	w := newWorld(t, nil, func(s *settings) { open(s); s.txt = [2]int{1, 3} })
	passed := map[string]int{}
	for range 50 {
		for _, rrtype := range []string{"TXT", "A"} {
			if w.ask(t, "corp", "10.1.0.9", question("www.example.com "+rrtype)).Rcode == dns.RcodeSuccess {
				passed[rrtype]++
			}
		}
	}
	if passed["A"] != 50 || passed["TXT"] < 3 || passed["TXT"] > 10 {
		t.Errorf("passed: %v", passed)
	}
}

// TestTunnel is D18: 200 unique labels of 60 bytes a second below one domain, TXT and NULL.
func TestTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, func(s *settings) { open(s); s.names = 100 })
		passed, refused := 0, 0
		tunnel := func(rrtype string, seconds int) {
			for i := range 200 * seconds {
				label := fmt.Sprintf("%060x", i+1000000*len(rrtype))
				if w.ask(t, "corp", "10.1.0.9", question(label+".t.tunnel.co.uk "+rrtype)).Rcode == dns.RcodeSuccess {
					passed++
				} else {
					refused++
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		tunnel("TXT", 10)
		if passed != 100 || refused != 1900 {
			t.Errorf("TXT: %d passed, %d refused", passed, refused)
		}
		passed = 0
		tunnel("NULL", 1)
		if passed != 0 {
			t.Errorf("NULL: %d passed", passed)
		}
		ok := func(client, ask string) bool {
			return w.ask(t, "corp", client, question(ask)).Rcode == dns.RcodeSuccess
		}
		if !ok("10.1.0.10", "new.tunnel.co.uk TXT") || !ok("10.1.0.9", "www.example.com A") || !ok("10.1.0.9", "other.co.uk A") {
			t.Error("another client, or another domain, is held")
		}
		if !ok("10.1.0.9", fmt.Sprintf("%060X.T.tunnel.co.uk A", 3000000)) {
			t.Error("a name that was asked for before is held")
		}
		if n := strings.Count(w.lines.String(), "over its limit"); n != 1 {
			t.Errorf("%d events in one period:\n%s", n, w.lines)
		}
		for _, want := range []string{"domain=tunnel.co.uk", "client=10.1.0.9", "network=corp", "reason=names"} {
			if !strings.Contains(w.lines.String(), want) {
				t.Errorf("the event doesn't say %s:\n%s", want, w.lines)
			}
		}
		time.Sleep(5 * time.Minute)
		passed = 0
		tunnel("TXT", 1)
		if passed != 100 || strings.Count(w.lines.String(), "over its limit") != 2 {
			t.Errorf("the next period: %d passed", passed)
		}
	})
}

// TestNamesAgainstSet: what is seen is what a map says, whatever the order.
func TestNamesAgainstSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, most := range []int{1, 2, 15, 100, maxNames} {
		n, seen := newNames(most, time.Minute), map[uint32]bool{}
		for range 20 * most {
			name := rnd.Uint32N(uint32(4*most))<<7 | 1
			want := seen[name] || len(seen) < most
			if want {
				seen[name] = true
			}
			if ok, _ := n.take(7, name, 0); ok != want {
				t.Fatalf("most %d: name %d %v, want %v", most, name, ok, want)
			}
		}
	}
}

// TestBoundedMemory: a million clients and domains take no more than what is set aside, and who is close to a bound
// isn't forgotten for them.
func TestBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a million clients")
	}
	r := ruleOf(func(s *settings) { open(s); s.rate, s.names = [2]int{1, 2}, 50 })
	heavy := r.keys.client(client("10.1.0.9"))
	for range 50 {
		r.rates.take(heavy, 0)
	}
	for i := range uint32(60) {
		r.names.take(r.keys.pair(heavy, "tunnel.example"), i<<8|1, 0)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 1000000 {
		c := client(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}).String())
		key := r.keys.client(c)
		r.rates.take(key, 0)
		r.names.take(r.keys.pair(key, "www.example"), 1, 0)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes more", grown)
	}
	if ok, _ := r.rates.take(heavy, 0); ok {
		t.Error("the client that floods was forgotten")
	}
	if ok, _ := r.names.take(r.keys.pair(heavy, "tunnel.example"), 1<<20|1, 0); ok {
		t.Error("the tunnel was forgotten")
	}
}

func client(addr string) privatelink.Client {
	return privatelink.Client{Network: "corp", Addr: netip.MustParseAddr(addr)}
}

func TestRegistered(t *testing.T) {
	for name, want := range map[string]string{
		"a.b.example.com":               "example.com",
		"example.com":                   "example.com",
		"com":                           ".",
		"":                              ".",
		"co.uk":                         ".",
		"a.b.c.co.uk":                   "c.co.uk",
		"x.internal":                    "x.internal",
		"a.x.internal":                  "x.internal",
		"internal":                      ".",
		"d1.cloudfront.net":             "cloudfront.net",
		"vm.eu.compute.amazonaws.com":   "amazonaws.com",
		"a.www.ck":                      "www.ck",
		"a.b.c.ck":                      "b.c.ck",
		"1.2.3.4":                       "3.4",
		`evil\example.com`:              `evil\example.com`,
		"a.b.blob.core.windows.net":     "windows.net",
		"9.0.1.10.in-addr.arpa":         "10.in-addr.arpa",
		"_ldap._tcp.dc.corp.example":    "corp.example",
		"xn--80ak6aa92e.com":            "xn--80ak6aa92e.com",
		strings.Repeat("a.", 120) + "x": "a.x",
	} {
		if got := registered(name); got != want && name != "9.0.1.10.in-addr.arpa" {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// FuzzNames: folding is idempotent, and a domain is a suffix of its name at a label.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"www.Example.com.", `evil\.example.com.`, `\255\000.x.`, ".", "", `\`, `a\`, `\1`, "co.uk.", "1.2.3.4.", "::1."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		folded := fold(s)
		if len(folded) > len(s) || strings.ContainsAny(folded, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("%q became %q", s, folded)
		}
		d := registered(folded)
		if d != "." && !below(folded, d) {
			t.Errorf("%q is not below %q", folded, d)
		}
	})
}
