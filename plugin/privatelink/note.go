package privatelink

import (
	"context"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// note is what there is to know of an answer that is to be given again without asking: what it was made from, which is what was read of
// the snapshot and what was observed, and what it was counted as. Only [Privatelink.write] fills it: what is passed on isn't kept. An answer that would be another one the
// next time, though nothing has changed, is made for a query without a note.
type note struct {
	msg     *dns.Msg // nil: it may not be given again
	size    int      // before it was made to fit
	gen     *generation
	trace   link.Trace
	network link.ID
	view    string // as [generation.viewKey] names it
	result  result
	chosen  bool // the name is one of any number
	misses  []prometheus.Counter
	seen    []observation
	turn    *uint64 // that the order of the addresses followed from; nil: from none
}

// noteKey is where the context of a query has its note.
type noteKey struct{}

// observation is what the data plane has said of a service.
type observation struct {
	service  link.ID
	what     aspect
	site     string // of an endpoint
	observed bool
}

// aspect is what is observed of a service.
type aspect uint8

const (
	isPublished aspect = iota
	isHealthy
	isHealthyAt // a site
)

// of reports whether the observation is so now.
func (o *observation) of(p *Privatelink) bool {
	switch o.what {
	case isPublished:
		return p.Published(o.service)
	case isHealthy:
		return p.Healthy(o.service)
	}
	return p.HealthyAt(o.service, o.site)
}

// keep notes an answer that is about to be sent. n may be nil.
func (n *note) keep(q *query, m *dns.Msg, res result) {
	if n == nil || q.old || q.view.ecs != nil || res == servfail {
		return
	}
	n.msg, n.size, n.network, n.result = m, m.Len(), q.view.network, res
	n.view, n.chosen = n.gen.viewKey(q.view.network, q.view.site), n.gen.chosen(q.view.network, Canonical(nil, q.r.Question[0].Name))
}

// begin has all that is read of the snapshot noted from here on.
func (q *query) begin(n *note) {
	n.gen = q.gen
	q.gen = q.gen.traced(&n.trace, q.view)
}

// unnoted goes on without a note: the answer is not to be given again.
func (q *query) unnoted() {
	if q.note != nil {
		if q.note.gen != nil {
			q.gen = q.note.gen
		}
		q.note = nil
	}
}

// chosen reports whether a name in canonical form stands nowhere: a pattern of a service or a wildcard of a linked zone stands for it, and
// the client may choose others.
func (g *generation) chosen(network link.ID, asked []byte) bool {
	if a := g.answerFor(network, asked); a != nil {
		return a.pattern
	}
	if private, ok := g.snapshot.GroupedAlias(link.Name(asked)); ok {
		asked = []byte(private)
	}
	zone, _, ok := g.snapshot.LinkedZone(network, asked)
	if !ok {
		return false
	}
	relative, _ := zone.Relative(link.Name(asked))
	return !g.exists(network, zone, relative)
}

// miss notes a name without an endpoint. n may be nil.
func (n *note) miss(c prometheus.Counter) {
	if n != nil {
		n.misses = append(n.misses, c)
	}
}

// noting returns the handler for a query whose note is n: p, which sees what is observed. It has p's generation.
func (p *Privatelink) noting(n *note) *Privatelink {
	c := p.like(p.settings, p.Zones)
	c.noted = p
	c.Published = func(id link.ID) bool { return n.observe(p, observation{service: id, what: isPublished}) }
	c.Healthy = func(id link.ID) bool { return n.observe(p, observation{service: id, what: isHealthy}) }
	c.HealthyAt = func(id link.ID, site string) bool {
		return n.observe(p, observation{service: id, what: isHealthyAt, site: site})
	}
	if p.Turn != nil {
		c.Turn = func() uint64 {
			turn := p.Turn()
			n.turn = &turn
			return turn
		}
	}
	return c
}

func (n *note) observe(p *Privatelink, o observation) bool {
	o.observed = o.of(p)
	n.seen = append(n.seen, o)
	return o.observed
}

// holds returns what reports whether all that was observed is still so.
func (n *note) holds(p *Privatelink) func() bool {
	seen, turn := n.seen, n.turn
	if len(seen) == 0 && turn == nil {
		return nil
	}
	return func() bool {
		for i := range seen {
			if seen[i].of(p) != seen[i].observed {
				return false
			}
		}
		return turn == nil || p.Turn() == *turn
	}
}

// still returns what reports whether all that was read is the same in another moment, and how much memory that takes; nil: nobody can say.
func (n *note) still() (is func(m *fastpath.Moment) bool, bytes int) {
	reads, ok := n.trace.Reads()
	if !ok {
		return nil, 0
	}
	return func(m *fastpath.Moment) bool { return m.State.(*link.Snapshot).Has(reads) }, reads.Bytes()
}

// noteOf returns the note of a query, nil where it has none.
func noteOf(ctx context.Context) *note {
	n, _ := ctx.Value(noteKey{}).(*note)
	return n
}
