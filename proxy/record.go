package proxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/postern-link/postern/link"
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

// What the lines of flows begin with.
const (
	flowEnded   = "flow ended"
	flowRefused = "flow refused"
	moreRefused = "more flows refused"
)

// record counts a flow that has ended, and queues its line.
func (p *Proxy) record(f *flow) {
	if l := f.report(p.log.Enabled(context.Background(), slog.LevelInfo)); l != nil {
		// Not under mu, which a review of the flow waits for.
		p.log.LogAttrs(context.Background(), slog.LevelInfo, l.message, slog.Any("", l))
	}
}

// report counts the flow, and returns its line: nil where it isn't to have one.
func (f *flow) report(logged bool) *flowLine {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count()
	f.noteEnd()
	message := flowEnded
	if f.established {
		f.metrics().ended[f.reason].Inc()
		if f.reason == gaveWay.reason && f.detail == gaveWay.detail { // it costs whoever forges it a datagram, as a refusal does
			logged = f.proxy.refusals.allow(f.peer.Addr(), f.reason) && logged
		}
	} else {
		message = flowRefused
		f.metrics().refused[f.reason].Inc()
		logged = f.proxy.refusals.allow(f.peer.Addr(), f.reason) && logged
	}
	if !logged {
		return nil
	}
	return f.lineLocked(message)
}

// lineLocked returns what the line of a flow says. The caller holds mu.
func (f *flow) lineLocked(message string) *flowLine {
	l := &flowLine{
		message: message, id: f.id, protocol: f.protocol, request: f.request, peer: f.peer, target: f.address, reason: f.reason, detail: f.detail,
		endpoint: f.verdict.Endpoint, observed: f.observed, toTarget: f.toTarget.Load(), toClient: f.toClient.Load(), lasted: time.Since(f.began),
	}
	l.verdict, l.rule = f.verdictWords()
	return l
}

// flowLine is what the line of a flow says. It is made words by who writes it, not by who ends the flow.
type flowLine struct {
	message            string
	id                 flowID
	protocol           link.Protocol
	request            policy.Request
	peer, target       netip.AddrPort
	reason             policy.Reason
	verdict, rule      string
	detail             string
	endpoint           *link.Endpoint // nil: there is none
	observed           []string       // rules on trial that would have refused it
	toTarget, toClient int64
	lasted             time.Duration
}

// LogValue implements [slog.LogValuer].
func (l *flowLine) LogValue() slog.Value {
	a := make([]slog.Attr, 0, 16)
	w := make(text, 0, 256)
	a = append(a,
		slog.String("flow", w.add(hex.AppendEncode(w, l.id[:]))),
		slog.String("protocol", l.protocol.String()),
		slog.String("source", w.add(l.request.Source.AppendTo(w))),
		slog.String("local", w.add(l.request.Local.AppendTo(w))),
		slog.String("reason", string(l.reason)))
	if l.request.Source != l.peer {
		a = append(a, slog.String("peer", w.add(l.peer.AppendTo(w))))
	}
	if e := l.endpoint; e != nil {
		a = append(a,
			slog.String("endpoint", string(e.ID)),
			slog.String("service", string(e.Service)),
			slog.String("link", e.Connection.LinkID.String()))
	}
	if l.request.Judged {
		a = append(a, slog.String("sni", string(l.request.Name)))
	}
	for _, one := range [...]slog.Attr{slog.String("verdict", l.verdict), slog.String("rule", l.rule), slog.String("observed", strings.Join(l.observed, " "))} {
		if one.Value.String() != "" {
			a = append(a, one)
		}
	}
	if l.target.IsValid() {
		a = append(a, slog.String("target", w.add(l.target.AppendTo(w))))
	}
	if l.detail != "" {
		a = append(a, slog.String("detail", l.detail))
	}
	return slog.GroupValue(append(a,
		slog.Int64("to_target", l.toTarget),
		slog.Int64("to_client", l.toClient),
		slog.Duration("duration", l.lasted))...)
}

// text is the memory of several short strings.
type text []byte

// add takes what was appended as a string of its own. No byte of it is written again.
func (w *text) add(longer []byte) string {
	n := len(*w)
	*w = longer
	return unsafe.String(unsafe.SliceData(longer[n:]), len(longer)-n)
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
		log.Info(moreRefused, "source", from, "flows", one.more, slog.Group("reasons", reasons...))
	}
}
