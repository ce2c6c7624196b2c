package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
)

// FlowLimit bounds the flows of each endpoint or of each source. It is of new flows: live ones stay when it
// becomes narrower. The zero FlowLimit bounds nothing.
type FlowLimit struct {
	// PerSource: of each source address, an IPv6 /64 being one. Else of each endpoint.
	PerSource bool
	Flows     int           // at once; 0: no bound
	Rate      int           // new ones in each Every; 0: no bound
	Every     time.Duration // of Rate: a second or a minute
	// Burst is how many may come at once after a quiet time. 0: Rate.
	Burst int
}

// String returns the limit as a Corefile says it.
func (l FlowLimit) String() string {
	words := []string{"limit", "endpoint"}
	if l.PerSource {
		words[1] = "source"
	}
	if l.Flows > 0 {
		words = append(words, l.flows())
	}
	if l.Rate > 0 {
		words = append(words, l.rate())
	}
	if l.Burst > 0 {
		words = append(words, fmt.Sprintf("burst %d", l.Burst))
	}
	return strings.Join(words, " ")
}

func (l FlowLimit) flows() string { return fmt.Sprintf("flows %d", l.Flows) }

func (l FlowLimit) rate() string {
	unit := "s"
	if l.Every >= time.Minute {
		unit = "m"
	}
	return fmt.Sprintf("rate %d/%s", l.Rate, unit)
}

// per is what one limit refuses by.
func (l FlowLimit) per() string {
	if l.PerSource {
		return "limit source "
	}
	return "limit endpoint "
}

const (
	// maxBuckets is how many endpoints or sources a rate tells apart. Those beyond share one bucket: they
	// are held to the rate together, so that nobody gets more by coming from many addresses.
	maxBuckets = 1 << 16
	// sweepEvery is how often what has been quiet is looked for at most.
	sweepEvery = time.Second
)

// LimitRule is the name under which a refusal by a limit is reported.
const LimitRule = "limit"

// Meter counts flows against limits. It outlives the policies that it is asked for: live flows are counted
// whether there is a limit or not, so that one that comes later finds them. The zero Meter is ready, and
// safe for concurrent use.
type Meter struct {
	mu    sync.Mutex
	live  map[subject]int
	of    *Policy // whose limits are in rates
	rates map[rateKey]*rates
	epoch time.Time // of the first flow
}

// subject is what is counted: an endpoint, or a source.
type subject struct {
	endpoint link.ID
	source   netip.Addr
}

// rateKey tells the rates of all sets apart. One that a new policy has too goes on where it was.
type rateKey struct {
	set   string
	limit FlowLimit
}

// rates are the buckets of one limit. Each is a single time: when it will be full again (the generic cell
// rate algorithm). Times are since the epoch of the meter.
type rates struct {
	step, depth time.Duration // that a flow takes, and that a full bucket holds
	full        map[subject]time.Duration
	swept       time.Duration
}

// subject returns whom a limit counts a flow for.
func (l FlowLimit) subject(endpoint link.ID, source netip.Addr) subject {
	if l.PerSource {
		return subject{source: source}
	}
	return subject{endpoint: endpoint}
}

// Enter counts a flow, unless a limit of p is reached: it returns the set and the rule that refuses then, and
// nothing is taken. What was entered must [Meter.Leave].
func (m *Meter) Enter(p *Policy, endpoint link.ID, source netip.Addr, now time.Time) (set, rule string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin(now)
	at := now.Sub(m.epoch)
	m.follow(p)
	var take []func() // tokens, once nothing refuses
	for _, s := range p.sets() {
		for _, l := range s.Limits {
			who := l.subject(endpoint, source)
			if l.Flows > 0 && m.live[who] >= l.Flows {
				return s.Name, "policy " + s.Name + ": " + l.per() + l.flows(), false
			}
			if l.Rate <= 0 {
				continue
			}
			r := m.rates[rateKey{s.Name, l}]
			if who, ok = r.find(who, at); !ok {
				return s.Name, "policy " + s.Name + ": " + l.per() + l.rate(), false
			}
			take = append(take, func() { r.full[who] = max(r.full[who], at) + r.step })
		}
	}
	for _, f := range take {
		f()
	}
	m.count(endpoint, source)
	return "", "", true
}

// Count counts a flow that was let in before, by another process, without asking: limits are of new flows.
func (m *Meter) Count(endpoint link.ID, source netip.Addr, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin(now)
	m.count(endpoint, source)
}

// begin makes a meter ready that has counted nothing. The caller holds mu.
func (m *Meter) begin(now time.Time) {
	if m.live == nil {
		m.live, m.epoch = make(map[subject]int), now
	}
}

// count counts a flow. The caller holds mu.
func (m *Meter) count(endpoint link.ID, source netip.Addr) {
	m.live[subject{endpoint: endpoint}]++
	m.live[subject{source: source}]++
}

// Leave gives back what Enter or Count has counted.
func (m *Meter) Leave(endpoint link.ID, source netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, who := range [...]subject{{endpoint: endpoint}, {source: source}} {
		if m.live[who]--; m.live[who] <= 0 {
			delete(m.live, who)
		}
	}
}

func (p *Policy) sets() []Set {
	if p == nil {
		return nil
	}
	return p.Sets
}

// follow makes the rates those of p. The caller holds mu.
func (m *Meter) follow(p *Policy) {
	if m.of == p && m.rates != nil {
		return
	}
	old := m.rates
	m.of, m.rates = p, make(map[rateKey]*rates)
	for _, s := range p.sets() {
		for _, l := range s.Limits {
			if l.Rate <= 0 {
				continue
			}
			key := rateKey{s.Name, l}
			if m.rates[key] = old[key]; m.rates[key] == nil {
				m.rates[key] = newRates(l)
			}
		}
	}
}

func newRates(l FlowLimit) *rates {
	every, burst := max(l.Every, time.Millisecond), l.Burst
	if burst <= 0 {
		burst = l.Rate
	}
	step := max(every/time.Duration(l.Rate), 1)
	return &rates{step: step, depth: step * time.Duration(burst), full: make(map[subject]time.Duration)}
}

// find returns whose bucket a flow is taken from, and whether it has a token at the time.
func (r *rates) find(who subject, at time.Duration) (subject, bool) {
	if _, there := r.full[who]; !there && len(r.full) >= maxBuckets {
		if r.sweep(at); len(r.full) >= maxBuckets {
			who = subject{}
		}
	}
	return who, max(r.full[who], at)+r.step <= at+r.depth
}

// sweep forgets the buckets that are full again.
func (r *rates) sweep(at time.Duration) {
	if at-r.swept < sweepEvery && r.swept != 0 {
		return
	}
	r.swept = at
	for who, full := range r.full {
		if full <= at {
			delete(r.full, who)
		}
	}
}
