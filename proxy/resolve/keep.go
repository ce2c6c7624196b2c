package resolve

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Bounds of what is known of a name.
const (
	// MaxAddrs bounds the addresses of a name. Of more the first in their order are taken, which every node does alike.
	MaxAddrs = 64
	// Keep is how long the addresses of a name that isn't found any more go on to hold. RFC 8767 allows days; but
	// here bytes go there, and in an hour an address may be somebody else's.
	Keep = time.Hour
	// LeastTTL and MostTTL bound the time between two lookups of a name that is found. In between its own time to live
	// counts, which is how its owner says how long the others may go by an answer.
	LeastTTL = 5 * time.Second
	MostTTL  = 5 * time.Minute
	// The time after a lookup that found nothing: the first is doubled with each.
	firstRetry = time.Second
	mostRetry  = 30 * time.Second
)

// Found is the outcome of a lookup.
type Found struct {
	V4, V6 Half
}

// Half is what was found of one family.
type Half struct {
	Addrs []netip.Addr // none, without an error: there are none
	TTL   time.Duration
	Err   error // nobody has said anything that counts
}

// ErrNone is the error of a name that has no address, or that doesn't exist: who was asked has said so.
var ErrNone = errors.New("it has no address")

// keep is what there is to remember of a name from one lookup to the next.
type keep struct {
	v4, v6 half
	fails  int // lookups that found nothing, in a row
}

// half is what was last found of a family.
type half struct {
	addrs []netip.Addr
	at    time.Time
}

// take returns what is known after a lookup, and when the next one is due. A family that nobody has said anything of stays as it
// was, for [Keep] at most; and so do both where there is no address left.
func (k *keep) take(now time.Time, was Known, f Found) (Known, time.Duration) {
	if len(f.V4.Addrs)+len(f.V6.Addrs) > 0 {
		k.v4.take(now, f.V4)
		k.v6.take(now, f.V6)
		k.fails = 0
		next := Known{Addrs: merge(k.v4.addrs, k.v6.addrs), At: now, Looked: true}
		for half, err := range map[*half]error{&k.v4: f.V4.Err, &k.v6: f.V6.Err} {
			if err != nil && len(half.addrs) > 0 {
				next.At, next.Err = half.at, err
			}
		}
		return next, early(min(cmp.Or(f.V4.ttl(), MostTTL), cmp.Or(f.V6.ttl(), MostTTL)))
	}
	k.v4.expire(now)
	k.v6.expire(now)
	next := Known{Addrs: merge(k.v4.addrs, k.v6.addrs), At: was.At, Err: cmp.Or[error](f.V4.Err, f.V6.Err, ErrNone), Looked: true}
	retry := mostRetry
	if k.fails < 5 {
		retry = firstRetry << k.fails
	}
	k.fails++
	return next, early(retry)
}

// early returns up to a tenth less, so that the lookups of many names and nodes spread.
func early(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// ttl returns how long the half holds; 0 where it has no address, and says nothing of that. An address with a time of 0
// holds for the least that there is.
func (h *Half) ttl() time.Duration {
	if len(h.Addrs) == 0 {
		return 0
	}
	return min(max(h.TTL, LeastTTL), MostTTL)
}

func (h *half) take(now time.Time, f Half) {
	if f.Err != nil {
		h.expire(now)
		return
	}
	h.addrs, h.at = f.Addrs, now
}

func (h *half) expire(now time.Time) {
	if now.Sub(h.at) >= Keep {
		h.addrs = nil
	}
}

// merge returns addresses in their order, each once; nil for none.
func merge(a, b []netip.Addr) []netip.Addr {
	if len(a)+len(b) == 0 {
		return nil
	}
	all := make([]netip.Addr, 0, len(a)+len(b))
	for _, list := range [...][]netip.Addr{a, b} {
		for _, addr := range list {
			all = append(all, addr.Unmap())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	return slices.Clip(all[:min(len(all), MaxAddrs)])
}

// Outcome is what came of a lookup.
type Outcome uint8

// The outcomes.
const (
	Resolved Outcome = iota // it has addresses
	Empty                   // it has none, or there is no such name
	Failed                  // nobody has said
	outcomes
)

// Outcomes returns all of them.
func Outcomes() []Outcome { return []Outcome{Resolved, Empty, Failed} }

// String returns the word of metrics.
func (o Outcome) String() string { return [...]string{"found", "empty", "failed"}[o] }

func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return Resolved
	case errors.Is(err, ErrNone):
		return Empty
	}
	return Failed
}
