package privatelink

import (
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
)

// turnover is when the objects of a reload are in force, and with them the settings of a server block: new settings say of the old state what neither
// Corefile says, and old ones of the new state. Where a network is found by its name now and was by its addresses, each client would be another one's.
type turnover struct {
	from   atomic.Uint64 // the revision with the new objects, as far as that is known
	stored chan struct{} // closed when they are in force
	once   sync.Once
}

// tell is told as [handover.Draft.OnForce] says.
func (t *turnover) tell(from uint64, stored bool) {
	t.from.Store(from)
	if stored {
		t.once.Do(func() { close(t.stored) })
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

// neighbour is what answers in place of a handler on the other side of a turnover.
type neighbour struct {
	*turnover
	handler *Privatelink // with the settings of the other Corefile; nil: it had no such block
}

// untilForce is how long a query to a new server block waits for the objects of its Corefile.
const untilForce = time.Second

// succeed has p answer by the settings of the block before it until the objects are in force, and that by those of p afterwards. A nil block says that
// there was none.
func (p *Privatelink) succeed(block *Privatelink) *turnover {
	t := &turnover{stored: make(chan struct{})}
	t.from.Store(math.MaxUint64)
	if block == nil {
		p.before.Store(&neighbour{t, nil})
		return t
	}
	settings, zones := block.settings, block.Zones
	if still := block.before.Load(); still != nil && !still.over() { // its own objects never came into force
		if still.handler == nil {
			return p.succeed(nil)
		}
		settings, zones = still.handler.settings, still.handler.Zones
	}
	if !reflect.DeepEqual(settings, p.settings) || !reflect.DeepEqual(zones.Rows(), p.Zones.Rows()) {
		p.before.Store(&neighbour{t, p.like(settings, zones)})
		block.after.Store(&neighbour{t, block.like(p.settings, p.Zones)}) // for queries that it still has then
	}
	return t
}

// by returns the handler whose settings a snapshot is answered by, and the snapshot, which may be a newer one; a nil handler says that there is none yet.
func (p *Privatelink) by(s *link.Snapshot) (*Privatelink, *link.Snapshot) {
	if after := p.after.Load(); after != nil && after.at(s) {
		return after.handler, s
	}
	before := p.before.Load()
	if before == nil {
		return p, s
	}
	if before.handler == nil && !before.at(s) {
		select {
		case <-before.stored:
		case <-time.After(untilForce):
		}
		s = p.Snapshot()
	}
	if !before.at(s) {
		return before.handler, s
	}
	if before.over() {
		p.before.CompareAndSwap(before, nil)
	}
	return p, s
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
