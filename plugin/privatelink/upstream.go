package privatelink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
)

// Upstream looks after the queries of one server block that are passed on to other servers: that no more than
// [maxPending] wait for them, and that those servers don't ask this process again. It has no goroutine while nobody
// asks: a query that is passed on begins a look where the last one is too long ago. Nil looks after nothing.
type Upstream struct {
	ask      plugin.Handler // that asks the others
	snapshot func() *link.Snapshot
	now      func() time.Time
	log      *slog.Logger
	gauge    *prometheus.GaugeVec
	server   string // what the metric calls this one

	pending atomic.Int64
	loops   atomic.Pointer[[]string] // suffixes that lead back here, "" for all names; nil: none
	next    atomic.Int64             // of the next look, in nanoseconds; the largest while one goes on

	mu      sync.Mutex // guards what follows, and is held to change loops
	first   time.Time  // of the first look, zero before
	checked bool       // a server has answered a probe, one way or the other
}

const (
	// maxPending is how many queries may wait for other servers at once. Each holds a socket and a goroutine.
	maxPending = 2048
	// maxSuffixes is how many suffixes of names are probed beside the root.
	maxSuffixes = 16
	// How long it is until the next look: where all is well, where there is a loop, and where nobody has answered.
	lookAgain, lookLooping, lookSilent = 10 * time.Second, 2 * time.Second, 500 * time.Millisecond
	// patience is how long readiness waits for the first answer to a probe.
	patience = 3 * time.Second
)

// Why what would be passed on fails (RFC 8914).
var (
	leadsBack = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: "the upstream asks this server again"}
	tooMany   = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: "too many queries wait for the upstream"}
)

// enter lets a query for a name go to the next plugin, or says why not. Whoever was let in calls leave.
func (u *Upstream) enter(fqdn string) (why *dns.EDNS0_EDE) {
	if u == nil {
		return nil
	}
	if u.pending.Add(1) > maxPending {
		u.pending.Add(-1)
		return tooMany
	}
	u.look()
	if u.loop(fqdn) {
		u.pending.Add(-1)
		return leadsBack
	}
	return nil
}

// leave ends what enter has let in.
func (u *Upstream) leave() {
	if u != nil {
		u.pending.Add(-1)
	}
}

// loop reports whether a name is known to lead back here.
func (u *Upstream) loop(fqdn string) bool {
	loops := u.loops.Load()
	if loops == nil {
		return false
	}
	var buf [maxName]byte
	name := string(Canonical(buf[:0], fqdn))
	return slices.ContainsFunc(*loops, func(suffix string) bool {
		return suffix == "" || name == suffix || strings.HasSuffix(name, "."+suffix)
	})
}

// ready reports whether no loop is known, and begins to look for one. It waits for the first look, but not for
// servers that don't answer.
func (u *Upstream) ready() bool {
	if u == nil {
		return true
	}
	u.look()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.loops.Load() == nil && (u.checked || u.now().Sub(u.first) > patience)
}

// look begins to look for loops, unless that is being done or was done lately.
func (u *Upstream) look() {
	now, next := u.now(), u.next.Load()
	if now.UnixNano() < next || !u.next.CompareAndSwap(next, math.MaxInt64) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first.IsZero() {
		u.first = now
	}
	go u.probeAll()
}

// probeAll looks for loops once: at the root, for servers that send everything here, and below the suffixes of the names of
// services, for those that send these. It ends when forward has given up, which has deadlines of its own.
func (u *Upstream) probeAll() {
	suffixes := append(u.suffixes(), "")
	back, answered := make([]bool, len(suffixes)), make([]bool, len(suffixes))
	var wg sync.WaitGroup
	for i, suffix := range suffixes {
		wg.Go(func() { back[i], answered[i] = u.probe(suffix) })
	}
	wg.Wait()
	var loops []string
	for i, suffix := range suffixes {
		if back[i] {
			loops = append(loops, suffix)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.found(loops)
	wait := lookAgain
	switch {
	case len(loops) > 0:
		wait = lookLooping
	case !slices.Contains(answered, true):
		wait = lookSilent
	}
	u.checked = u.checked || wait != lookSilent
	u.next.Store(u.now().Add(wait).UnixNano())
}

// found notes which suffixes lead back here, and says what has changed. u.mu is held.
func (u *Upstream) found(loops []string) {
	var before []string
	if l := u.loops.Load(); l != nil {
		before = *l
	}
	if len(loops) == 0 {
		u.loops.Store(nil)
	} else {
		u.loops.Store(&loops)
	}
	for _, suffix := range loops {
		if !slices.Contains(before, suffix) {
			u.gauge.WithLabelValues(u.server, suffix+".").Set(1)
			u.log.Warn("the servers of forward ask this one again: names below fail until they don't", "below", suffix+".")
		}
	}
	for _, suffix := range before {
		if !slices.Contains(loops, suffix) {
			u.gauge.DeleteLabelValues(u.server, suffix+".")
			u.log.Info("the servers of forward don't ask this one again any more", "below", suffix+".")
		}
	}
}

// suffixes returns what the names of services are below, as far as there is room.
func (u *Upstream) suffixes() (found []string) {
	s := u.snapshot()
	if s == nil {
		return nil
	}
	seen := 0
	for v := range s.Services() {
		for _, n := range v.Names {
			if seen++; seen > 100*maxSuffixes {
				return found
			}
			_, suffix, ok := strings.Cut(string(n.Public), ".")
			if !ok || slices.Contains(found, suffix) {
				continue
			}
			if found = append(found, suffix); len(found) == maxSuffixes {
				return found
			}
		}
	}
	return found
}

// probeLabel begins the names of probes. What follows it is random, so that nobody has an answer in a cache.
const probeLabel = "postern-loop-"

// probes are the names of the probes of this process that are on their way.
var probes sync.Map // of string to *loopProbe

// loopProbe is one probe.
type loopProbe struct {
	u      *Upstream
	suffix string
	came   atomic.Bool // back
}

// noClient is whom the answer to a probe is for.
type noClient struct{ dns.ResponseWriter }

// RemoteAddr implements [dns.ResponseWriter]: forward asks by UDP who was asked by UDP.
func (noClient) RemoteAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// LocalAddr implements [dns.ResponseWriter].
func (noClient) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// probe asks for a name that nobody has, and reports whether this process was asked for it meanwhile, and
// whether there was an answer.
func (u *Upstream) probe(suffix string) (back, answered bool) {
	var b [8]byte
	rand.Read(b[:]) // never fails
	name := probeLabel + hex.EncodeToString(b[:]) + "."
	if suffix == "" {
		rand.Read(b[:]) // also below another top-level domain each time: that the last one doesn't exist may be known
		name += "p" + hex.EncodeToString(b[:]) + "."
	} else {
		name += suffix + "."
	}
	p := &loopProbe{u: u, suffix: suffix}
	probes.Store(name, p)
	defer probes.Delete(name)
	w := nonwriter.New(noClient{})
	r := new(dns.Msg).SetQuestion(name, dns.TypeA)
	r.SetEdns0(maxUDP, false)
	code, err := u.ask.ServeDNS(context.Background(), w, r)
	answered = err == nil && (w.Msg != nil || !plugin.ClientWrite(code) && code != dns.RcodeServerFailure)
	return p.came.Load(), answered
}

// isProbe reports whether a question is a probe of this process that has come back, and notes that.
func isProbe(fqdn string) bool {
	if len(fqdn) < len(probeLabel) || !strings.EqualFold(fqdn[:len(probeLabel)], probeLabel) {
		return false
	}
	found, ok := probes.Load(strings.ToLower(fqdn))
	if !ok {
		return false
	}
	if p := found.(*loopProbe); p.came.CompareAndSwap(false, true) {
		p.u.add(p.suffix) // at once: other probes may wait for servers that are dead
	}
	return true
}

// add notes that a suffix leads back here.
func (u *Upstream) add(suffix string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var loops []string
	if l := u.loops.Load(); l != nil {
		loops = *l
	}
	if !slices.Contains(loops, suffix) {
		u.found(append(slices.Clone(loops), suffix))
	}
}
