package privatelink

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
)

// TestTurnoverNotRemembered: until the store says that the objects are in force, no answer is given again: another commit may have had the revision that was told.
func TestTurnoverNotRemembered(t *testing.T) {
	srv := newServer(t, world(t))
	old := srv.Privatelink
	p := old.like(old.settings, old.Zones)
	p.network, p.places = "lab", []string{"here"} // in the new Corefile
	of := func(p *Privatelink) *blocks {
		return &blocks{at: map[string]map[string]*Privatelink{"here": {".": p}}}
	}
	turn := newTurnover(of(old), of(p))
	p.before.Store(turn)
	old.after.Store(turn)
	old.places = p.places
	asked := p
	ask := func() (n *note, answer string) {
		n = new(note)
		w := &writer{}
		w.RemoteIP = corp
		if _, err := asked.ServeDNS(context.WithValue(t.Context(), noteKey{}, n), w, question("contoso.database.windows.net A")); err != nil || len(w.got) == 0 {
			t.Fatalf("%d answers, %v", len(w.got), err)
		}
		return n, text(w.got[0].Answer)
	}
	forgotten := func(when string) {
		t.Helper()
		n, _ := ask()
		if n.msg != nil {
			is, _ := n.still()
			t.Errorf("%s: remembered, and still so: %v", when, is != nil && is(&fastpath.Moment{State: srv.snapshot}))
		}
	}
	_, before := ask()
	forgotten("at first")
	turn.tell(srv.snapshot.Revision()+1, false)
	forgotten("told")
	srv.snapshot = apply(t, srv.snapshot, link.PutNetwork{Network: link.Network{ID: "other", Prefixes: prefixes("10.77.0.0/16")}})
	forgotten("after another one's commit")
	turn.tell(math.MaxUint64, false) // and ours has failed
	forgotten("after the failure")
	if _, again := ask(); again != before {
		t.Errorf("after the failure %q, want %q", again, before)
	}
	former := turn.former.Swap(new(blocks))
	if p.Ready() {
		t.Error("ready, with nothing to answer by")
	}
	if turn.former.Store(former); !p.Ready() {
		t.Error("not ready")
	}
	turn.tell(srv.snapshot.Revision(), true)
	n, after := ask()
	if n.msg == nil || after == before {
		t.Errorf("in force: remembered %v, answer %q", n.msg != nil, after)
	}
	asked = old // which still has queries
	if n, answer := ask(); n.msg != nil || answer != after {
		t.Errorf("in force, at the old server: remembered %v, answer %q, want %q", n.msg != nil, answer, after)
	}
}

// TestTurnoverWait: queries to a block that is new wait for a second from the first one on, and no more than so many at once.
func TestTurnoverWait(t *testing.T) {
	turn := newTurnover(new(blocks), nil)
	var waiting atomic.Int64
	ended := make(chan struct{}, 2*maxWaiting)
	wait := func() {
		waiting.Add(1)
		go func() {
			turn.wait()
			waiting.Add(-1)
			ended <- struct{}{}
		}()
	}
	for range 2 * maxWaiting {
		wait()
	}
	for range maxWaiting { // those that are too many
		<-ended
	}
	if turn.waiting.Load() == 0 {
		t.Error("nobody waits")
	}
	for range maxWaiting {
		<-ended
	}
	wait() // a second is over
	<-ended
	began := time.Now()
	turn.wait()
	if d := time.Since(began); d > untilForce/2 {
		t.Errorf("it waits for %v once more", d)
	}
	next := newTurnover(new(blocks), nil)
	go next.tell(1, true)
	next.wait()
	if !next.over() {
		t.Error("given up in less than a second")
	}
}

// TestTurnoverPrior: where the objects of a Corefile were never in force, the next one has the settings in force before it that were.
func TestTurnoverPrior(t *testing.T) {
	a, b, c, d := new(blocks), new(blocks), new(blocks), new(blocks)
	b.turnover = newTurnover(a, b)
	c.turnover = newTurnover(b, c)
	b.turnover.tell(math.MaxUint64, false)
	if c.turnover.before() != a {
		t.Error("b counts, which was never in force")
	}
	c.turnover.tell(math.MaxUint64, false)
	d.turnover = newTurnover(c, d)
	if d.turnover.before() != a || c.turnover.prior.Load() != nil {
		t.Error("c or b counts, or what was before c is kept")
	}
	c.turnover.tell(7, true) // just before d would be
	if d.turnover.before() != c {
		t.Error("c is in force and doesn't count")
	}
	d.turnover.tell(8, true)
	if d.turnover.before() != nil || d.turnover.former.Load() != nil {
		t.Error("d is in force, and another one counts or is kept")
	}
}
