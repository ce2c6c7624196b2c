package resolve

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

func addrs(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func half1(ttl time.Duration, list ...string) Half { return Half{Addrs: addrs(list...), TTL: ttl} }

var errAway = errors.New("away")

func away() Half { return Half{Err: errAway} }

// TestTake goes through what lookups may find one after the other.
func TestTake(t *testing.T) {
	type step struct {
		after  time.Duration
		found  Found
		want   string // addresses, with spaces between
		err    error
		age    time.Duration // of what holds
		lo, hi time.Duration // until the next lookup
	}
	retry := func(n time.Duration) (time.Duration, time.Duration) { return n * 9 / 10, n }
	for name, steps := range map[string][]step{
		"both families": {
			{found: Found{half1(time.Minute, "10.0.0.2", "10.0.0.1", "10.0.0.2"), half1(30*time.Second, "2001:db8::1", "::ffff:10.0.0.1")}, want: "10.0.0.1 10.0.0.2 2001:db8::1", lo: 27 * time.Second, hi: 30 * time.Second},
		},
		"never found": {
			{found: Found{}, err: ErrNone, lo: 900 * time.Millisecond, hi: time.Second},
			{found: Found{away(), away()}, err: errAway, lo: 1800 * time.Millisecond, hi: 2 * time.Second},
			{found: Found{Half{}, away()}, err: errAway, lo: 3600 * time.Millisecond, hi: 4 * time.Second},
		},
		"a time to live of 0":     {{found: Found{half1(0, "10.0.0.1"), Half{}}, want: "10.0.0.1", lo: LeastTTL * 9 / 10, hi: LeastTTL}},
		"a time to live of weeks": {{found: Found{half1(400*time.Hour, "10.0.0.1"), Half{}}, want: "10.0.0.1", lo: MostTTL * 9 / 10, hi: MostTTL}},
		"what is gone is kept for an hour": {
			{found: Found{half1(time.Minute, "10.0.0.1"), Half{}}, want: "10.0.0.1", lo: 54 * time.Second, hi: time.Minute},
			{after: time.Minute, found: Found{}, want: "10.0.0.1", err: ErrNone, age: time.Minute, lo: 900 * time.Millisecond, hi: time.Second},
			{after: Keep - time.Minute - 1, found: Found{away(), away()}, want: "10.0.0.1", err: errAway, age: Keep - 1, lo: 1800 * time.Millisecond, hi: 2 * time.Second},
			{after: 1, found: Found{away(), Half{}}, err: errAway, age: Keep, lo: 3600 * time.Millisecond, hi: 4 * time.Second},
			{after: 1, found: Found{half1(time.Minute, "10.0.0.7"), away()}, want: "10.0.0.7", lo: 54 * time.Second, hi: time.Minute},
		},
		"a family that fails stays": {
			{found: Found{half1(time.Minute, "10.0.0.1"), half1(time.Minute, "2001:db8::1")}, want: "10.0.0.1 2001:db8::1", lo: 54 * time.Second, hi: time.Minute},
			{after: time.Minute, found: Found{half1(time.Minute, "10.0.0.2"), away()}, want: "10.0.0.2 2001:db8::1", err: errAway, age: time.Minute, lo: 54 * time.Second, hi: time.Minute},
			{after: Keep, found: Found{half1(time.Minute, "10.0.0.2"), away()}, want: "10.0.0.2", lo: 54 * time.Second, hi: time.Minute},
		},
		"a family that is gone goes": {
			{found: Found{half1(time.Minute, "10.0.0.1"), half1(time.Minute, "2001:db8::1")}, want: "10.0.0.1 2001:db8::1", lo: 54 * time.Second, hi: time.Minute},
			{after: time.Minute, found: Found{half1(time.Minute, "10.0.0.1"), Half{}}, want: "10.0.0.1", lo: 54 * time.Second, hi: time.Minute},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var k keep
			var known Known
			now := start
			for i, s := range steps {
				now = now.Add(s.after)
				var next time.Duration
				known, next = k.take(now, known, s.found)
				if want := addrs(strings.Fields(s.want)...); !slices.Equal(known.Addrs, want) || !errors.Is(known.Err, s.err) || !known.Looked {
					t.Fatalf("step %d: %+v, want %v and %v", i, known, want, s.err)
				}
				if !known.At.IsZero() && now.Sub(known.At) != s.age {
					t.Errorf("step %d: it is from %v ago", i, now.Sub(known.At))
				}
				if next < s.lo || next > s.hi {
					t.Errorf("step %d: the next one in %v, want %v to %v", i, next, s.lo, s.hi)
				}
			}
		})
	}
	var k keep
	var known Known
	var next time.Duration
	for range 50 {
		known, next = k.take(start, known, Found{})
	}
	if lo, hi := retry(mostRetry); next < lo || next > hi {
		t.Errorf("after 50 failures the next one is in %v", next)
	}
}

// Of too many addresses every node takes the same.
func TestTooManyAddresses(t *testing.T) {
	var list []netip.Addr
	for i := range 200 {
		list = append(list, netip.AddrFrom4([4]byte{10, 0, 0, byte(199 - i)}))
	}
	got := merge(list, nil)
	if len(got) != MaxAddrs || got[0] != netip.MustParseAddr("10.0.0.0") || got[MaxAddrs-1] != netip.MustParseAddr("10.0.0.63") {
		t.Errorf("%v", got)
	}
}
