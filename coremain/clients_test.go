package coremain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMostClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		descriptors int
		memory      int64
		want        int
	}{
		{"what flows leave", 1024, 8 << 30, 256},
		{"descriptors", 20_000, 8 << 30, 2500},
		{"memory", 1 << 20, 256 << 20, 1024},
		{"little memory", 1 << 20, 16 << 20, 256},
		{"memory isn't known", 524_288, 0, 65_536},
	} {
		if got := mostClients(tt.descriptors, tt.memory); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// D20: how many descriptors make a look due, from what the last one has found.
func TestAlarm(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                 string
		n, limit, most, want int
	}{
		{"at the start", 0, 1024, 256, 256},
		{"few are left", 900, 1024, 256, 962},
		{"one is left", 1023, 1024, 256, 1023},
		{"none is left", 1024, 1024, 256, 1024},
		{"more than the limit, which was lowered", 2000, 1024, 256, 2000},
		{"many are left", 100_000, 1 << 20, 1024, 101_024},
	} {
		if got := alarm(tt.n, tt.limit, tt.most); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// D20: which connections are too many. Each source is "FROM:IDLE,IDLE..." with seconds, and so is what is ended.
func TestSurplus(t *testing.T) {
	t.Parallel()
	const most = 8 // and 2 of one source
	for _, tt := range []struct{ name, all, want string }{
		{"nobody", "", ""},
		{"few", "192.0.2.1:5,3 192.0.2.2:9", ""},
		{"too many of one, the quietest goes", "192.0.2.1:5,3,4 192.0.2.2:9", "192.0.2.1:5"},
		{"a network of IPv6 is one source", "[2001:db8::1]:7 [2001:db8::2]:6 [2001:db8::3]:8 [2001:db8:0:1::1]:9", "[2001:db8::3]:8"},
		{"too many in all: those of the largest first, then the quietest",
			"192.0.2.1:1,2 192.0.2.2:1,3 192.0.2.3:9 192.0.2.4:1 192.0.2.5:1 192.0.2.6:1 192.0.2.7:1", "192.0.2.2:3"},
		{"each has one", "192.0.2.1:1 192.0.2.2:2 192.0.2.3:3 192.0.2.4:4 192.0.2.5:5 192.0.2.6:6 192.0.2.7:7 192.0.2.8:8 192.0.2.9:9 192.0.2.10:10", "192.0.2.10:10 192.0.2.9:9"},
	} {
		all := parseClients(t, tt.all)
		got := surplus(all, most)
		if text := formatClients(got); text != formatClients(parseClients(t, tt.want)) {
			t.Errorf("%s: %s", tt.name, text)
		}
		if crowded(all, most) != (len(got) > 0) {
			t.Errorf("%s: crowded %v", tt.name, len(got) == 0)
		}
		ended := make(map[int]bool)
		for _, c := range got {
			ended[c.fd] = true
		}
		rest := slices.DeleteFunc(all, func(c caller) bool { return ended[c.fd] })
		if crowded(rest, most) {
			t.Errorf("%s: %d are left, and are too many", tt.name, len(rest))
		}
	}
}

func parseClients(t *testing.T, text string) (all []caller) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		i := strings.LastIndex(word, ":")
		from, err := netip.ParseAddrPort(word[:i] + ":1")
		if err != nil {
			t.Fatal(err)
		}
		for _, idle := range strings.Split(word[i+1:], ",") {
			d, err := time.ParseDuration(idle + "s")
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, caller{fd: len(all), from: from, idle: d})
		}
	}
	return all
}

func formatClients(all []caller) string {
	var words []string
	for _, c := range all {
		words = append(words, fmt.Sprintf("%s:%s", c.from.Addr(), c.idle))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// A connection is a client's of CoreDNS where the listener that it came in at shares its port: never one to an endpoint beside it.
func TestOfListeners(t *testing.T) {
	t.Parallel()
	listeners := map[netip.AddrPort]bool{
		netip.MustParseAddrPort("10.0.0.1:53"):       true,
		netip.MustParseAddrPort("[::]:853"):          true,
		netip.MustParseAddrPort("10.0.0.9:853"):      false, // of an endpoint
		netip.MustParseAddrPort("0.0.0.0:443"):       false, // of endpoints that are routed here
		netip.MustParseAddrPort("10.0.0.1:443"):      true,
		netip.MustParseAddrPort("[2001:db8::9]:853"): false,
	}
	for _, tt := range []struct {
		at   string
		want bool
	}{
		{"10.0.0.1:53", true}, {"10.0.0.2:53", false}, {"10.0.0.1:853", true}, {"10.0.0.9:853", false}, {"[2001:db8::1]:853", true}, {"[2001:db8::9]:853", false},
		{"10.0.0.1:443", true}, {"10.0.0.2:443", false},
	} {
		if got := len(ofListeners([]caller{{at: netip.MustParseAddrPort(tt.at)}}, listeners)) == 1; got != tt.want {
			t.Errorf("%s: %v", tt.at, got)
		}
	}
}
