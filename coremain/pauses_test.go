package coremain

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// D20: a source has a pause when as many of its connections as it may have were ended within a second and one more is; a longer one each time that it comes again, and
// as a new one when it was calm.
func TestPauses(t *testing.T) {
	t.Parallel()
	const share = 64
	p, now := make(pauses), time.Unix(1_000_000, 0)
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/64")
	step := func(what string, after time.Duration, ended map[netip.Prefix]int, begun int, want ...netip.Prefix) {
		t.Helper()
		now = now.Add(after)
		if got := p.note(ended, share, now); got != begun {
			t.Errorf("%s: %d pauses begin, want %d", what, got, begun)
		}
		if got := p.current(now); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	of := func(s netip.Prefix, n int) map[netip.Prefix]int { return map[netip.Prefix]int{s: n} }
	step("a few", 0, of(a, share), 0)
	step("as many, later", 1100*time.Millisecond, of(a, share), 0)
	step("one more", time.Millisecond, of(a, 1), 1, a)
	step("its first pause", leastPause-time.Millisecond, nil, 0, a)
	step("those that waited are ended", 0, of(a, 1000), 0, a)
	step("its end", time.Millisecond, nil, 0)
	step("again, and another one", time.Second, map[netip.Prefix]int{a: share + 1, b: share + 1}, 2, a, b)
	step("the other one's end", leastPause, nil, 0, a)
	step("its own, which was longer", leastPause, nil, 0)
	for range 10 {
		step("again and again", mostPause, of(a, share+1), 1, a)
	}
	step("the longest", mostPause-time.Millisecond, nil, 0, a)
	step("calm", 2*mostPause+time.Second, nil, 0)
	if len(p) != 0 {
		t.Errorf("%d are remembered", len(p))
	}
	step("as a new one", 0, of(a, share+1), 1, a)
	step("which is short", leastPause, nil, 0)

	ended := make(map[netip.Prefix]int)
	for i := range 2 * mostPacers {
		ended[netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 32)] = share + 1
	}
	if p.note(ended, share, now); len(p) > mostPacers || len(p.current(now)) != mostPaused {
		t.Errorf("%d are remembered and %d have a pause", len(p), len(p.current(now)))
	}
}
