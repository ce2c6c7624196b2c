package privatelink

import (
	"context"
	"reflect"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
)

// note is what there is to know of an answer that is to be given again without asking: what it was made from, and what it
// was counted as. Only [Privatelink.write] fills it: what is passed on isn't kept. An answer that would be another one the
// next time, though nothing has changed, is made for a query without a note.
type note struct {
	msg      *dns.Msg // nil: it may not be given again
	size     int      // before it was made to fit
	snapshot *link.Snapshot
	network  link.ID
	result   result
	chosen   bool // the name is one of any number
	misses   []prometheus.Counter
	seen     []observation
}

// noteKey is where the context of a query has its note.
type noteKey struct{}

// observation is what the data plane has said of a service.
type observation struct {
	service  link.ID
	health   bool // that it is healthy, or else published
	observed bool
}

// keep notes an answer that is about to be sent. n may be nil.
func (n *note) keep(q *query, m *dns.Msg, res result) {
	if n == nil || q.old || q.view.ecs != nil || res == servfail {
		return
	}
	n.msg, n.size, n.snapshot, n.network, n.result = m, m.Len(), q.gen.snapshot, q.view.network, res
	n.chosen = q.chosen()
}

// chosen reports whether the name of a query stands nowhere: a pattern of a service or a wildcard of a linked zone stands for it, and
// the client may choose others.
func (q *query) chosen() bool {
	asked := Canonical(nil, q.r.Question[0].Name)
	if a := q.gen.answerFor(q.view.network, asked); a != nil {
		return a.pattern
	}
	if private, ok := q.gen.snapshot.GroupedAlias(link.Name(asked)); ok {
		asked = []byte(private)
	}
	zone, _, ok := q.gen.snapshot.LinkedZone(q.view.network, asked)
	if !ok {
		return false
	}
	relative, _ := zone.Relative(link.Name(asked))
	return !q.gen.exists(q.view.network, zone, relative)
}

// miss notes a name without an endpoint. n may be nil.
func (n *note) miss(c prometheus.Counter) {
	if n != nil {
		n.misses = append(n.misses, c)
	}
}

// noting returns the handler for a query whose note is n: p, which sees what is observed. It has p's generation.
func (p *Privatelink) noting(n *note) *Privatelink {
	c := &Privatelink{settings: p.settings, stats: p.stats, noted: p}
	to, from := reflect.ValueOf(c).Elem(), reflect.ValueOf(p).Elem()
	for i := range from.NumField() {
		if to.Field(i).CanSet() { // all that setup sets, also what is added later
			to.Field(i).Set(from.Field(i))
		}
	}
	c.Published = func(id link.ID) bool { return n.observe(id, false, p.Published(id)) }
	c.Healthy = func(id link.ID) bool { return n.observe(id, true, p.Healthy(id)) }
	return c
}

func (n *note) observe(service link.ID, health, observed bool) bool {
	n.seen = append(n.seen, observation{service, health, observed})
	return observed
}

// holds returns what reports whether all that was observed is still so.
func (n *note) holds(p *Privatelink) func() bool {
	seen := n.seen
	if len(seen) == 0 {
		return nil
	}
	return func() bool {
		for i := range seen {
			ask := p.Published
			if seen[i].health {
				ask = p.Healthy
			}
			if ask(seen[i].service) != seen[i].observed {
				return false
			}
		}
		return true
	}
}

// noteOf returns the note of a query, nil where it has none.
func noteOf(ctx context.Context) *note {
	n, _ := ctx.Value(noteKey{}).(*note)
	return n
}
