package proxy

import (
	"net/netip"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// Who forges an allowed source makes flows that nobody uses. They give way: where a bound of UDP flows is reached, the
// oldest flow whose target has never sent anything in it ends, and the new one has its place. A flow that was answered stays
// until it is idle. A client of a target that never answers loses nothing: its next datagram begins a flow again.

// maxLeaving bounds the flows that have given way and aren't finished yet: who sends faster than they are is refused, so
// that they don't come to be most of the live set.
const maxLeaving = 256

// share is the flows that a bound is about: of an endpoint, of a source, or all. Those that were answered, as far as
// that was seen, are counted and no longer in the line. The zero share is empty.
type share struct {
	n           int
	first, last *grams // the oldest first
}

// The bounds that a flow stands in line for.
const (
	ofAll = iota
	ofEndpoint
	ofSource
	shareKinds
)

// place is where a flow of datagrams stands in the line of one share.
type place struct {
	of         *share // nil: in none, it was answered or has left
	prev, next *grams
}

func (s *share) add(g *grams, kind int) {
	g.places[kind] = place{of: s, prev: s.last}
	if s.last != nil {
		s.last.places[kind].next = g
	} else {
		s.first = g
	}
	s.last = g
}

func (g *grams) unlink(kind int) {
	p := &g.places[kind]
	if p.of == nil {
		return
	}
	if p.prev != nil {
		p.prev.places[kind].next = p.next
	} else {
		p.of.first = p.next
	}
	if p.next != nil {
		p.next.places[kind].prev = p.prev
	} else {
		p.of.last = p.prev
	}
	*p = place{}
}

// unanswered returns the oldest flow of a share whose target has never sent anything in it, nil for none. Those that
// were answered leave the line: each is looked at once.
func (s *share) unanswered(kind int) *grams {
	for s.first != nil && s.first.flow.toClient.Load() > 0 {
		s.first.unlink(kind)
	}
	return s.first
}

// gaveWay is the end of a flow that another has the place of.
var gaveWay = refusal{policy.Limit, "its target had never answered, and it gave way to a newer flow"}

// counted is where a flow of datagrams is counted.
type counted struct {
	source   netip.Addr // by sourceOf
	endpoint link.ID
	places   [shareKinds]place
	gone     bool // its place was given to another
}

// enter counts a flow, or says which bound is against it. Before it nothing is made for a datagram. out are the flows whose
// places it has, none most often, which the caller ends; no lock is held then.
func (d *datagrams) enter(settings *Settings, source netip.Addr, endpoint link.ID) (out []*grams, r *refusal) {
	source = sourceOf(source)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, &nodeEnds
	}
	all, mostOfEndpoint, mostOfSource := settings.datagramShares()
	for _, bound := range [...]struct {
		share      *share
		kind, most int
		full       *refusal
	}{
		{d.sources[source], ofSource, mostOfSource, &tooManyOfSource},
		{d.endpoints[endpoint], ofEndpoint, mostOfEndpoint, &tooManyOfEndpoint},
		{&d.all, ofAll, all, &tooManyDatagrams},
	} {
		if bound.share == nil || bound.share.n < bound.most {
			continue
		}
		g := bound.share.unanswered(bound.kind)
		if g == nil || d.leaving >= maxLeaving {
			return out, bound.full
		}
		d.leaving++
		d.uncount(g)
		g.gone = true
		out = append(out, g)
	}
	d.shareOf(source, endpoint, func(s *share, _ int) { s.n++ })
	d.proxy.flows.Add(1) // which nobody waits for before shut
	return out, nil
}

// stand puts a flow that enter has counted into the lines of those that may give way.
func (d *datagrams) stand(g *grams) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shareOf(g.source, g.endpoint, func(s *share, kind int) { s.add(g, kind) })
}

// leave gives back what enter took. With the last flow of a proxy that lets none in it ends the receiving: what comes then
// waits for the next process that has the socket.
func (d *datagrams) leave(g *grams) {
	d.mu.Lock()
	if g.gone {
		d.leaving--
	} else {
		d.uncount(g)
	}
	last := d.closed && d.all.n == 0
	d.mu.Unlock()
	if last {
		d.proxy.mu.Lock()
		d.proxy.stopReceiving()
		d.proxy.mu.Unlock()
	}
	d.proxy.flows.Done()
}

// uncount takes a flow out of its shares. The caller holds mu.
func (d *datagrams) uncount(g *grams) {
	d.shareOf(g.source, g.endpoint, func(s *share, kind int) {
		g.unlink(kind)
		s.n--
	})
	if d.sources[g.source].n == 0 {
		delete(d.sources, g.source)
	}
	if d.endpoints[g.endpoint].n == 0 {
		delete(d.endpoints, g.endpoint)
	}
}

// shareOf calls f with each share that a flow of a source and an endpoint counts for. The caller holds mu.
func (d *datagrams) shareOf(source netip.Addr, endpoint link.ID, f func(s *share, kind int)) {
	if d.sources[source] == nil {
		d.sources[source] = new(share)
	}
	if d.endpoints[endpoint] == nil {
		d.endpoints[endpoint] = new(share)
	}
	f(&d.all, ofAll)
	f(d.endpoints[endpoint], ofEndpoint)
	f(d.sources[source], ofSource)
}

var (
	tooManyDatagrams  = refusal{policy.Limit, "too many flows of UDP"}
	tooManyOfEndpoint = refusal{policy.Limit, "too many flows of UDP of the endpoint"}
	tooManyOfSource   = refusal{policy.Limit, "too many flows of the source"}
)
