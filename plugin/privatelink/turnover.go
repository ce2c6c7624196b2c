package privatelink

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// turnover is when the objects of a reload are in force, and with them the settings of its server blocks: new settings say of the old state what neither
// Corefile says, and old ones of the new state. Where a network is found by its name now and was by its addresses, each client would be another one's.
type turnover struct {
	from   atomic.Uint64 // the revision with the new objects, as far as that is known
	stored chan struct{} // closed when they are in force
	once   sync.Once

	former atomic.Pointer[blocks]   // of the Corefile before; nil once the objects are in force
	prior  atomic.Pointer[turnover] // to that one, where its own objects weren't in force; else nil
	now    *blocks

	patience func() <-chan struct{} // is closed when nobody waits any longer
	waiting  atomic.Int64           // how many queries do
}

// newTurnover returns the turnover from former blocks, which may have one of their own, to others.
func newTurnover(former, now *blocks) *turnover {
	t := &turnover{stored: make(chan struct{}), now: now}
	t.from.Store(math.MaxUint64)
	t.former.Store(former)
	if prior := former.turnover; prior != nil && !prior.over() {
		if first := prior.prior.Load(); first != nil && !first.over() { // its objects have given way to those of prior
			prior.former.Store(first.before())
		}
		prior.prior.Store(nil)
		t.prior.Store(prior)
	}
	t.patience = sync.OnceValue(func() <-chan struct{} {
		over := make(chan struct{})
		time.AfterFunc(untilForce, func() { close(over) })
		return over
	})
	return t
}

// tell is told as [handover.Draft.OnForce] says.
func (t *turnover) tell(from uint64, stored bool) {
	t.from.Store(from)
	if stored {
		t.once.Do(func() { close(t.stored) })
		t.former.Store(nil)
		t.prior.Store(nil)
	}
}

// at reports whether a snapshot has the new objects.
func (t *turnover) at(s *link.Snapshot) bool { return s.Revision() >= t.from.Load() }

// over reports whether the objects are in force for sure: others may have made a revision of that number.
func (t *turnover) over() bool {
	select {
	case <-t.stored:
		return true
	default:
		return false
	}
}

// before returns the server blocks of the Corefile that is in force until this one's is; nil where this one's is.
func (t *turnover) before() *blocks {
	if prior := t.prior.Load(); prior != nil && !prior.over() {
		return prior.before()
	}
	return t.former.Load()
}

// How long queries to a new server block wait for the objects of its Corefile, all from the first one on, and how many do at once.
const (
	untilForce = time.Second
	maxWaiting = 1024
)

// wait waits for the objects, if that may help.
func (t *turnover) wait() {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > maxWaiting {
		return
	}
	select {
	case <-t.stored:
	case <-t.patience():
	}
}

// blocks are the server blocks of a Corefile that have the directive.
type blocks struct {
	turnover *turnover                          // to this Corefile; nil: it is the first
	at       map[string]map[string]*Privatelink // by place and zone; [several] where nobody can say which one answers
}

// blocksKey is where a draft has its [blocks].
const blocksKey = "privatelink"

// several stands for server blocks of one zone at one place.
var several = new(Privatelink)

// enter adds the block of p to those of its Corefile, and has it succeed those of the Corefile before.
func (p *Privatelink) enter(draft *handover.Draft, config *dnsserver.Config) {
	all, _ := draft.Kept(blocksKey).(*blocks)
	if all == nil {
		all = &blocks{at: make(map[string]map[string]*Privatelink)}
		draft.Keep(blocksKey, all)
		if draft.Reload() {
			former, _ := draft.Before(blocksKey).(*blocks)
			if former == nil {
				former = new(blocks)
			}
			all.turnover = newTurnover(former, all)
			draft.OnForce(all.turnover.tell)
			for _, zones := range former.at {
				for _, block := range zones {
					if block != several {
						block.after.Store(all.turnover)
					}
				}
			}
		}
	}
	p.zone = config.Zone
	for _, host := range config.ListenHosts {
		place := strings.Join([]string{config.Transport, host, config.Port, config.ViewName}, " ")
		p.places = append(p.places, place)
		if all.at[place] == nil {
			all.at[place] = make(map[string]*Privatelink)
		}
		if all.at[place][config.Zone] == nil {
			all.at[place][config.Zone] = p
		} else {
			all.at[place][config.Zone] = several
		}
	}
	p.before.Store(all.turnover)
}

// asked returns the blocks that a query for a name reaches at some places: of the closest zone at each.
func (b *blocks) asked(places []string, fqdn string) (found []*Privatelink) {
	if b == nil {
		return nil
	}
	for _, place := range places {
		zones := b.at[place]
		for zone, end := strings.ToLower(fqdn), len(zones) == 0; !end; {
			block := zones[zone]
			if block != nil && !slices.Contains(found, block) {
				found = append(found, block)
			}
			if end = block != nil || zone == "."; !end {
				i, last := dns.NextLabel(zone, 0)
				if zone = zone[i:]; last {
					zone = "."
				}
			}
		}
	}
	return found
}

// as returns p with the settings of other blocks, p itself where those are its own, and nil where there are none or they differ.
func (p *Privatelink) as(others []*Privatelink) *Privatelink {
	if len(others) == 0 || slices.Contains(others, several) {
		return nil
	}
	first := others[0]
	if slices.ContainsFunc(others[1:], func(o *Privatelink) bool { return !o.says(first) }) {
		return nil
	}
	if known, ok := p.likes.Load(first); ok {
		return known.(*Privatelink)
	}
	c := p
	if !p.says(first) {
		c = p.like(first.settings, first.Zones)
	}
	p.likes.Store(first, c)
	return c
}

// says reports whether another handler has the same settings.
func (p *Privatelink) says(other *Privatelink) bool {
	return reflect.DeepEqual(p.settings, other.settings) && reflect.DeepEqual(p.Zones.Rows(), other.Zones.Rows())
}

// by returns the handler whose settings a question is answered by at a snapshot, and the snapshot, which may be a newer one; a nil handler says that there is none. Where
// it isn't settled which one that is, the answer isn't to be given again.
func (p *Privatelink) by(s *link.Snapshot, fqdn string) (handler *Privatelink, at *link.Snapshot, settled bool) {
	if after := p.after.Load(); after != nil && after.at(s) {
		return p.as(after.now.asked(p.places, fqdn)), s, false
	}
	turn := p.before.Load()
	if turn == nil {
		return p, s, true
	}
	if !turn.at(s) {
		if block := p.as(turn.before().asked(p.places, fqdn)); block != nil {
			return block, s, block == p
		}
		turn.wait()
		if s = p.Snapshot(); !turn.at(s) {
			return nil, s, false
		}
	}
	if !turn.over() {
		return p, s, false
	}
	if p.before.CompareAndSwap(turn, nil) {
		p.likes.Clear()
	}
	return p, s, true
}

// like returns a handler with other settings and another table of zones, and the rest of p.
func (p *Privatelink) like(s settings, zones *link.Zones) *Privatelink {
	c := &Privatelink{settings: s, stats: p.stats}
	to, from := reflect.ValueOf(c).Elem(), reflect.ValueOf(p).Elem()
	for i := range from.NumField() {
		if to.Field(i).CanSet() { // all that setup sets, also what is added later
			to.Field(i).Set(from.Field(i))
		}
	}
	c.Zones = zones
	return c
}
