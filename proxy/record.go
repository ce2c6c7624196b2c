package proxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/policy"
)

// flowID identifies a flow among all flows of all nodes: in the log, and for the target in the PROXY
// header (unique ID).
type flowID [16]byte

func (id flowID) String() string { return hex.EncodeToString(id[:]) }

// flowIDs makes flow IDs: 8 random bytes for the process, and a counter.
type flowIDs struct {
	process [8]byte
	last    *atomic.Uint64
}

func newFlowIDs() flowIDs {
	ids := flowIDs{last: new(atomic.Uint64)}
	rand.Read(ids.process[:]) // never fails
	return ids
}

func (ids *flowIDs) next() (id flowID) {
	copy(id[:], ids.process[:])
	binary.BigEndian.PutUint64(id[8:], ids.last.Add(1))
	return id
}

// record counts a flow that has ended, and queues its line.
func (p *Proxy) record(f *flow) {
	logged := p.log.Enabled(context.Background(), slog.LevelInfo)
	message, attrs := f.report(logged)
	if message != "" {
		// Not under mu, which a review of the flow waits for.
		p.log.LogAttrs(context.Background(), slog.LevelInfo, message, attrs...)
	}
}

// report counts the flow, and returns what its line says: nothing where it isn't to have one.
func (f *flow) report(logged bool) (message string, attrs []slog.Attr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count()
	f.noteEnd()
	message = "flow ended"
	if f.established {
		f.metrics().ended[f.reason].Inc()
	} else {
		message = "flow refused"
		f.metrics().refused[f.reason].Inc()
		logged = f.proxy.refusals.allow(f.peer.Addr(), f.reason) && logged
	}
	if !logged {
		return "", nil
	}
	return message, f.attrs()
}

// attrs are the fields of a flow's line. The caller holds mu.
func (f *flow) attrs() []slog.Attr {
	a := make([]slog.Attr, 0, 16)
	a = append(a,
		slog.String("flow", f.id.String()),
		slog.String("protocol", f.protocol.String()),
		slog.String("source", f.request.Source.String()),
		slog.String("local", f.request.Local.String()),
		slog.String("reason", string(f.reason)))
	if f.request.Source != f.peer {
		a = append(a, slog.String("peer", f.peer.String()))
	}
	if e := f.verdict.Endpoint; e != nil {
		a = append(a,
			slog.String("endpoint", string(e.ID)),
			slog.String("service", string(e.Service)),
			slog.String("link", e.Connection.LinkID.String()))
	}
	if f.request.Judged {
		a = append(a, slog.String("sni", string(f.request.Name)))
	}
	verdict, rule := f.verdictWords()
	if verdict != "" {
		a = append(a, slog.String("verdict", verdict))
	}
	if rule != "" {
		a = append(a, slog.String("rule", rule))
	}
	if len(f.observed) > 0 {
		a = append(a, f.observedAttr())
	}
	if f.address.IsValid() {
		a = append(a, slog.String("target", f.address.String()))
	}
	if f.detail != "" {
		a = append(a, slog.String("detail", f.detail))
	}
	return append(a,
		slog.Int64("to_target", f.toTarget.Load()),
		slog.Int64("to_client", f.toClient.Load()),
		slog.Duration("duration", time.Since(f.began)))
}

// verdictWords returns what was decided of the flow, and the rule that did; "" where none did. A flow that was
// refused after state and rules had allowed it has that refusal for its verdict, with what a program said for its
// rule, or none.
func (f *flow) verdictWords() (verdict, rule string) {
	v := f.verdict
	switch {
	case !v.Allow && v.Rule != "":
		return string(v.Reason), v.Rule
	case !f.established && f.reason == policy.PolicyDenied, !f.established && f.reason == policy.PolicyError:
		return string(f.reason), f.answered
	case !f.established:
		return string(f.reason), ""
	case v.Rule != "":
		return "allow", v.Rule
	}
	return "", ""
}

// Bounds of what refusals write: so many lines of one source in a window, then one summary.
const (
	refusalLines   = 10
	refusalWindow  = 10 * time.Second
	refusalSources = 4096 // sources told apart in one window; the others share one summary
)

// refusals bounds the log lines of refused flows. The zero value is ready.
type refusals struct {
	mu      sync.Mutex
	began   time.Time
	sources map[netip.Addr]*refused
}

type refused struct {
	lines, more int
	reasons     map[policy.Reason]int // of those without a line
}

// allow reports whether a refusal of the source may have a line of its own, and counts it.
func (r *refusals) allow(source netip.Addr, reason policy.Reason) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources == nil {
		r.sources = make(map[netip.Addr]*refused)
	}
	one := r.sources[source]
	if one == nil {
		if len(r.sources) >= refusalSources {
			source = netip.Addr{}
		}
		if one = r.sources[source]; one == nil {
			one = &refused{reasons: make(map[policy.Reason]int)}
			r.sources[source] = one
		}
	}
	if one.lines < refusalLines {
		one.lines++
		return true
	}
	one.more++
	one.reasons[reason]++
	return false
}

// tend writes the summaries at the end of a window.
func (r *refusals) tend(now time.Time, log *slog.Logger) {
	r.mu.Lock()
	due := now.Sub(r.began) >= refusalWindow
	if due {
		r.began = now
	}
	r.mu.Unlock()
	if due {
		r.flush(log)
	}
}

// flush writes a line for each source with refusals that had none, and begins anew.
func (r *refusals) flush(log *slog.Logger) {
	r.mu.Lock()
	sources := r.sources
	r.sources = nil
	r.mu.Unlock()
	for source, one := range sources {
		if one.more == 0 {
			continue
		}
		from := "others"
		if source.IsValid() {
			from = source.String()
		}
		reasons := make([]any, 0, len(one.reasons))
		for _, reason := range policy.Reasons() {
			if n := one.reasons[reason]; n > 0 {
				reasons = append(reasons, slog.Int(string(reason), n))
			}
		}
		log.Info("more flows refused", "source", from, "flows", one.more, slog.Group("reasons", reasons...))
	}
}
