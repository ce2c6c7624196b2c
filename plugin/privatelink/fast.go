package privatelink

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/metrics/vars"
	"github.com/coredns/coredns/plugin/pkg/rcode"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// fast answers for one address of a server block without its plugins. It implements [fastpath.Backend].
type fast struct {
	p       *Privatelink
	server  *dnsserver.Server
	ctx     context.Context // of each query, as the server's own have it
	at      netip.AddrPort
	why     *reason // no answer is given again; nil: they are
	sockets int     // of CoreDNS
	counted string  // the plugin behind prometheus, which counts it as the one that answers; "": there is no prometheus
	target  *fastpath.Target
	block   *fasts

	moment atomic.Pointer[fastpath.Moment]
}

// epochs numbers the moments of this process.
var epochs atomic.Uint64

// Now implements [fastpath.Backend]: a moment is a snapshot that is fresh enough for every name.
func (f *fast) Now() *fastpath.Moment {
	s := f.p.Snapshot()
	if s == nil || f.p.Stale(true) != "" {
		return nil
	}
	if m := f.moment.Load(); m != nil && m.State == any(s) {
		return m
	}
	return f.begin(s)
}

// reason is what the metrics say of it: "" where answers are given again.
func (f *fast) reason() string {
	if f.why == nil {
		return ""
	}
	return f.why.word
}

// begin returns the moment of a new snapshot.
func (f *fast) begin(s *link.Snapshot) *fastpath.Moment {
	// An endpoint has a public name and a private one, as a rule.
	next := &fastpath.Moment{Epoch: epochs.Add(1), State: s, Serial: serialOf(s), Names: 2 * s.CountEndpoints()}
	for {
		m := f.moment.Load()
		if m != nil {
			switch now := m.State.(*link.Snapshot); {
			case now == s:
				return m
			case now.Revision() > s.Revision():
				return nil // what began before the newest snapshot doesn't bring the old one back
			}
		}
		if f.moment.CompareAndSwap(m, next) {
			return next
		}
	}
}

// View implements [fastpath.Backend] as viewOf does for a query without a client subnet that counts.
func (f *fast) View(m *fastpath.Moment, client netip.Addr) (string, bool) {
	s := m.State.(*link.Snapshot)
	n := s.Network(f.p.network) // "" is none
	if f.p.network == "" {
		n = s.NetworkOf(client)
	}
	switch {
	case n == nil:
		return string(f.p.network), false
	case len(n.Sites) == 0:
		return string(n.ID), true
	}
	return f.p.generation(s).viewKey(n.ID, n.Sites.Of(client)), true
}

// Serve implements [fastpath.Backend].
func (f *fast) Serve(w dns.ResponseWriter, r *dns.Msg, learn bool) *fastpath.Answer {
	if !learn {
		f.server.ServeDNS(f.ctx, w, r)
		return nil
	}
	n := new(note)
	f.server.ServeDNS(context.WithValue(f.ctx, noteKey{}, n), w, r)
	if n.msg == nil || n.msg.Compress || n.msg.Truncated {
		return nil
	}
	a := &fastpath.Answer{
		Serial: n.gen.serial, View: n.view, Holds: n.holds(f.p), Counts: f.counts(w, r, n),
		Size: float64(n.size), Loose: n.loose(r.Question[0].Qtype),
	}
	a.Still, a.Keeps = n.still()
	if m := f.moment.Load(); m != nil && m.State == any(n.gen.snapshot) {
		a.Epoch = m.Epoch
	}
	return a
}

// loose reports whether the client may have any number of such answers.
func (n *note) loose(qtype uint16) bool {
	return n.result == nxdomain || n.result == refused || n.chosen || n.result == nodata && typeLabel(qtype) == "other"
}

// counts returns the counters that the plugins have raised for an answer.
func (f *fast) counts(w dns.ResponseWriter, r *dns.Msg, n *note) []prometheus.Counter {
	all := append(n.misses, f.p.stats.of(f.server.Addr, n.network)[n.result])
	if f.counted == "" {
		return all
	}
	family := "1"
	if clientOf(w).Is6() {
		family = "2"
	}
	if opt := r.IsEdns0(); opt != nil && opt.Do() {
		all = append(all, vars.RequestDo.WithLabelValues(f.server.Addr, ".", ""))
	}
	return append(all,
		vars.RequestCount.WithLabelValues(f.server.Addr, ".", "", "udp", family, typeLabel(r.Question[0].Qtype)),
		vars.ResponseRcode.WithLabelValues(f.server.Addr, ".", "", rcode.ToString(n.msg.Rcode), f.counted))
}

// typeLabel is what prometheus calls a type.
func typeLabel(qtype uint16) string {
	switch qtype {
	case dns.TypeAAAA, dns.TypeA, dns.TypeCNAME, dns.TypeDNSKEY, dns.TypeDS, dns.TypeMX, dns.TypeNSEC3, dns.TypeNSEC,
		dns.TypeNS, dns.TypePTR, dns.TypeRRSIG, dns.TypeSOA, dns.TypeSRV, dns.TypeTXT, dns.TypeHTTPS, dns.TypeSVCB,
		dns.TypeIXFR, dns.TypeAXFR, dns.TypeANY:
		return dns.Type(qtype).String()
	}
	return "other"
}
