package privatelink

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"maps"
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
	ask      plugin.Handler // what a query that is passed on meets, without what remembers answers
	snapshot func() *link.Snapshot
	now      func() time.Time
	log      *slog.Logger
	loopsOf  *prometheus.GaugeVec
	waits    prometheus.Gauge
	rejects  prometheus.Counter
	server   string // what the metrics call this one
	one      bool   // all queries are of one network, which may have all of maxPending

	pending atomic.Int64
	probes  sync.Map                 // of string to *loopProbe: the names of the probes that are on their way
	loops   atomic.Pointer[[]string] // suffixes that lead back here, "" for all names; nil: none
	next    atomic.Int64             // of the next look, in nanoseconds; the largest while one goes on

	mu      sync.Mutex // guards what follows, and is held to change loops
	first   time.Time  // of the first look, zero before
	checked bool       // a server has answered a probe, one way or the other
	ended   bool       // the metric belongs to others now

	sharing sync.Mutex
	waiting map[link.ID]int     // of pending, by network
	passed  map[string]struct{} // suffixes of services that something was passed on below since the last look
}

const (
	// maxPending is how many queries may wait for other servers at once. Each holds a socket and a goroutine.
	maxPending = 2048
	// maxShare is how many of them may be of one network, so that its clients can't keep others from being answered.
	maxShare = maxPending / 2
	// maxSuffixes is how many suffixes of names are probed beside the root and those that are known to lead back here.
	maxSuffixes = 32
	// attempts is how many probes must be answered, and not come back, until a loop is over: with several nodes behind
	// one server of others a probe may come back to another node.
	attempts = 4
	// How long it is until the next look: where all is well, where there is a loop, and where nobody has answered.
	lookAgain, lookLooping, lookSilent = 10 * time.Second, 2 * time.Second, 500 * time.Millisecond
	// patience is how long readiness waits for the first answer to a probe.
	patience = 3 * time.Second
)

// LeadsBack is the text of the extended error for a name that would be passed on in a circle.
const LeadsBack = "the upstream asks this server again"

// Why what would be passed on fails (RFC 8914).
var (
	leadsBack = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: LeadsBack}
	tooMany   = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: "too many queries wait for the upstream"}
)

// newUpstream returns what looks after the queries that a server passes on to the next plugins.
func newUpstream(server string, next plugin.Handler, stats *counters, snapshot func() *link.Snapshot, log *slog.Logger) *Upstream {
	return &Upstream{
		ask: next, snapshot: snapshot, now: time.Now, log: log, server: server,
		loopsOf: stats.loops, waits: stats.waits.WithLabelValues(server), rejects: stats.rejects.WithLabelValues(server),
	}
}

// enter lets a query of a network for a name go to the next plugin, or says why not: with tooMany it may go on where nobody else is
// asked. Whoever was let in calls leave.
func (u *Upstream) enter(fqdn string, network link.ID) (why *dns.EDNS0_EDE) {
	if u == nil {
		return nil
	}
	if u.pending.Add(1) > maxPending || !u.share(fqdn, network) {
		u.pending.Add(-1)
		u.rejects.Inc()
		return tooMany
	}
	u.waits.Inc()
	u.look()
	if u.loop(fqdn) {
		u.leave(network)
		return leadsBack
	}
	return nil
}

// share takes one of a network's places, and notes the suffixes that a name is below: the names of services and what they are right
// below, since servers of others may send here what is below either.
func (u *Upstream) share(fqdn string, network link.ID) bool {
	var buf [maxName]byte
	name := Canonical(buf[:0], fqdn)
	s := u.snapshot()
	u.sharing.Lock()
	defer u.sharing.Unlock()
	if !u.one && u.waiting[network] >= maxShare {
		return false
	}
	if u.waiting == nil {
		u.waiting, u.passed = make(map[link.ID]int), make(map[string]struct{})
	}
	u.waiting[network]++
	for len(name) > 0 && len(u.passed) < maxSuffixes {
		if s != nil && s.IsSuffix(name) {
			u.passed[string(name)] = struct{}{}
		}
		_, name, _ = bytes.Cut(name, []byte("."))
	}
	return true
}

// leave ends what enter has let in.
func (u *Upstream) leave(network link.ID) {
	if u == nil {
		return
	}
	u.pending.Add(-1)
	u.waits.Dec()
	u.sharing.Lock()
	defer u.sharing.Unlock()
	if u.waiting[network]--; u.waiting[network] == 0 {
		delete(u.waiting, network)
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
// services that something was passed on below, for those that send these: servers of others learn of no suffix that they
// weren't asked for anyway. It ends when the next plugins have given up, which have deadlines of their own. A loop that is
// known isn't over before that is known.
func (u *Upstream) probeAll() {
	var before []string
	if l := u.loops.Load(); l != nil {
		before = *l
	}
	suffixes := u.due(before)
	found := make([]probed, len(suffixes))
	var wg sync.WaitGroup
	for i, suffix := range suffixes {
		wg.Go(func() {
			found[i] = u.probe(suffix)
			for n := 1; n < attempts && found[i] == elsewhere && slices.Contains(before, suffix); n++ {
				found[i] = u.probe(suffix)
			}
		})
	}
	wg.Wait()
	var loops []string
	for i, suffix := range suffixes {
		if found[i] == cameBack || found[i] != elsewhere && slices.Contains(before, suffix) {
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
	case !slices.ContainsFunc(found, func(p probed) bool { return p != silent }):
		wait = lookSilent
	}
	u.checked = u.checked || wait != lookSilent
	u.next.Store(u.now().Add(wait).UnixNano())
}

// due returns what is to be probed: the root, what leads back here, and what something was passed on below since the last look.
func (u *Upstream) due(before []string) []string {
	u.sharing.Lock()
	due := slices.Concat([]string{""}, before, slices.Collect(maps.Keys(u.passed)))
	clear(u.passed)
	u.sharing.Unlock()
	slices.Sort(due)
	return slices.Compact(due)
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
		if !u.ended { // also what is known: the instance before this one has ended since, and taken it away
			u.loopsOf.WithLabelValues(u.server, suffix+".").Set(1)
		}
		if !slices.Contains(before, suffix) {
			u.log.Warn("the servers of forward ask this one again: names below fail until they don't", "below", suffix+".")
		}
	}
	for _, suffix := range before {
		if !slices.Contains(loops, suffix) {
			if !u.ended {
				u.loopsOf.DeleteLabelValues(u.server, suffix+".")
			}
			u.log.Info("the servers of forward don't ask this one again any more", "below", suffix+".")
		}
	}
}

// end takes what is known out of the metric: the instance ends, and the next one finds out anew.
func (u *Upstream) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	if loops := u.loops.Load(); loops != nil {
		for _, suffix := range *loops {
			u.loopsOf.DeleteLabelValues(u.server, suffix+".")
		}
	}
}

// probeLabel begins the names of probes. What follows it is random, so that nobody has an answer in a cache.
const probeLabel = "postern-loop-"

// loopProbe is one probe.
type loopProbe struct {
	suffix string
	came   atomic.Bool // back
}

// probed is what became of a probe.
type probed int

const (
	silent    probed = iota // nobody answered
	failed                  // with SERVFAIL: it may have been lost on its way here
	elsewhere               // answered by others
	cameBack
)

// noClient is whom the answer to a probe is for.
type noClient struct{ dns.ResponseWriter }

// RemoteAddr implements [dns.ResponseWriter]: forward asks by UDP who was asked by UDP.
func (noClient) RemoteAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// LocalAddr implements [dns.ResponseWriter].
func (noClient) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// probe asks for a name that nobody has, and reports what became of it. A panic, which an answer of others may be made to
// cause, is none: where a client asks, CoreDNS recovers.
func (u *Upstream) probe(suffix string) (found probed) {
	var b [8]byte
	rand.Read(b[:]) // never fails
	name := probeLabel + hex.EncodeToString(b[:]) + "."
	if suffix == "" {
		rand.Read(b[:]) // also below another top-level domain each time: that the last one doesn't exist may be known
		name += "p" + hex.EncodeToString(b[:]) + "."
	} else {
		name += suffix + "."
	}
	p := &loopProbe{suffix: suffix}
	u.probes.Store(name, p)
	defer func() {
		u.probes.Delete(name)
		if e := recover(); e != nil {
			u.log.Error("the answer to a probe of the servers of forward made a plugin panic", "error", e)
			found = silent
		}
		if p.came.Load() {
			found = cameBack
		}
	}()
	w := nonwriter.New(noClient{})
	r := new(dns.Msg).SetQuestion(name, dns.TypeA)
	r.SetEdns0(maxUDP, false)
	code, err := u.ask.ServeDNS(context.Background(), w, r)
	if w.Msg != nil {
		code = w.Msg.Rcode
	}
	switch {
	case err != nil || w.Msg == nil && (plugin.ClientWrite(code) || code == dns.RcodeServerFailure):
		return silent
	case code == dns.RcodeServerFailure:
		return failed
	}
	return elsewhere
}

// isProbe reports whether a question is a probe of this one that has come back, and notes that. Those of other server
// blocks are passed on: a server that asks another block asks in no circle.
func (u *Upstream) isProbe(fqdn string) bool {
	if u == nil || len(fqdn) < len(probeLabel) || !strings.EqualFold(fqdn[:len(probeLabel)], probeLabel) {
		return false
	}
	found, ok := u.probes.Load(strings.ToLower(fqdn))
	if !ok {
		return false
	}
	if p := found.(*loopProbe); p.came.CompareAndSwap(false, true) {
		u.add(p.suffix) // at once: other probes may wait for servers that are dead
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
