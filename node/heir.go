package node

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy"
)

// elder is the connection to a process whose place this one has taken, and whose flows this one judges.
type elder struct {
	conn   *succession.Conn
	proxy  *proxy.Proxy
	guests *proxy.Guests
	ended  chan struct{} // when nothing is read any more
	// settled is closed when that process receives no datagrams any more. handed is how many flows it has handed over by
	// then, and taken how many of them go on. Of hear.
	settled       chan struct{}
	handed, taken int
	received      chan struct{}             // closed when this process receives datagrams, as far as it is this elder's to say
	heard         atomic.Pointer[time.Time] // when flows were handed over last, or it began to wait for them
	life          context.Context
	stop          context.CancelFunc

	mu      sync.Mutex
	cut     []string // flows that it is still to be told of
	hushed  bool     // it is to be told, or was
	waiting chan struct{}
}

// host takes in the flows of the process at the other end; resend: another one has hosted them before.
func (n *Node) host(c *succession.Conn, resend bool) {
	p := n.proxy.Load()
	if p == nil {
		c.Close() // that process ends its flows then: without a data plane there are none
		return
	}
	e := &elder{conn: c, proxy: p, ended: make(chan struct{}), settled: make(chan struct{}), received: make(chan struct{}), waiting: make(chan struct{}, 1)}
	e.hears()
	e.life, e.stop = context.WithCancel(n.life)
	e.guests = p.Host(e.tell)
	n.eldersMu.Lock()
	defer n.eldersMu.Unlock()
	n.elders[e] = struct{}{}
	if s := n.Snapshot(); s != nil && n.judgesAlone() && (resend || s.Revision() != n.claimed) {
		e.hush() // what has changed before it was there to be told; how long ago another process was told last isn't known
	}
	n.background.Go(e.send)
	n.background.Go(func() { n.watchTime(e) })
	n.background.Go(func() { n.hear(e, resend) })
	n.background.Go(func() { n.settle(e, !resend) })
	context.AfterFunc(e.life, c.Interrupt)
}

// eldersNow returns the processes before this one that still have flows.
func (n *Node) eldersNow() []*elder {
	n.eldersMu.Lock()
	defer n.eldersMu.Unlock()
	return slices.Collect(maps.Keys(n.elders))
}

// tell has flows ended. It doesn't block: that process may be stopped.
func (e *elder) tell(ids []string) {
	e.mu.Lock()
	e.cut = append(e.cut, ids...)
	e.mu.Unlock()
	e.wake()
}

// wake has send look.
func (e *elder) wake() {
	select {
	case e.waiting <- struct{}{}:
	default:
	}
}

// send is the goroutine that tells the other process which flows must end.
func (e *elder) send() {
	told := false // that it is hushed
	for {
		select {
		case <-e.waiting:
		case <-e.life.Done():
			return
		}
		e.mu.Lock()
		ids, hush := e.cut, e.hushed && !told
		e.cut = nil
		e.mu.Unlock()
		if hush {
			told = true
			if !e.say(succession.Message{Kind: succession.Hush}) {
				return
			}
		}
		for some := range slices.Chunk(ids, succession.MaxIDs) {
			if !e.say(succession.Message{Kind: succession.Cut, IDs: some}) {
				return
			}
		}
	}
}

// say sends a message. Where it can't the other process has ended, or must end its flows, since it can't be told which: hear finds out.
func (e *elder) say(m succession.Message) bool {
	err := again(func() error { return e.conn.Send(m) })
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		e.conn.Interrupt()
	}
	return err == nil
}

// hear is the goroutine that follows what the other process tells of its flows, until it has ended or the connection is
// given to a process after this one.
func (n *Node) hear(e *elder, resend bool) {
	defer close(e.ended)
	var err error
	if resend {
		err = e.conn.Send(succession.Message{Kind: succession.Sync})
	}
	for err == nil {
		var m succession.Message
		var fds []int
		if m, fds, err = e.conn.Receive(); err != nil {
			break
		}
		switch m.Kind {
		case succession.Flows:
			e.guests.Put(guests(m.Flows)...)
		case succession.Gone:
			e.guests.Drop(m.IDs...)
		case succession.Elder:
			err = n.hostElder(fds)
			fds = nil
		case succession.Hand:
			e.takeOver(m.Handed, fds)
			e.hears()
			fds = nil
		case succession.Anew:
			e.begin(m.Anew)
			e.hears()
		case succession.Settled:
			n.tellTaken(e)
		}
		succession.CloseAll(fds)
	}
	e.guests.Leave()
	if e.life.Err() != nil {
		return // this process ends, or another one hears it now
	}
	if !errors.Is(err, io.EOF) {
		n.log.Error("the connection to the process before this one is broken; it ends its flows", "error", err)
	} else {
		n.log.Info("the process before this one has ended")
	}
	e.stop()
	e.conn.Close()
	n.eldersMu.Lock()
	defer n.eldersMu.Unlock()
	delete(n.elders, e)
}

// hostElder takes in the flows of a process before the one before, which has passed on the connection to it.
func (n *Node) hostElder(fds []int) error {
	for _, fd := range fds {
		c, err := succession.NewConn(fd)
		if err != nil {
			return err
		}
		n.host(c, true)
	}
	return nil
}

// guests returns flows as the data plane knows them.
func guests(flows []succession.Flow) (all []proxy.FlowInfo) {
	for _, f := range flows {
		all = append(all, guest(f))
	}
	return all
}

func guest(f succession.Flow) proxy.FlowInfo {
	return proxy.FlowInfo{
		ID: f.ID, Endpoint: f.Endpoint, Service: f.Service, LinkID: f.LinkID, Source: f.Source, Local: f.Local, Target: f.Target, ServerName: f.Name,
		State: proxy.FlowState(f.State), Started: f.Started, ToTarget: f.ToTarget, ToClient: f.ToClient, Guest: true,
		Standing: policy.Standing{
			Request: policy.Request{Source: f.Source, Local: f.Local, Judged: f.Judged, Name: f.Name, ECH: f.ECH},
			Service: f.For, LinkID: f.ForLink, Waits: f.Waits, Unread: f.Unread, Target: f.StandsAt, By: f.FoundBy,
		},
	}
}

// told is what another process has to know of a flow.
func told(f proxy.FlowInfo) succession.Flow {
	is := f.Standing
	if !is.Waits {
		f.Source, f.Local, f.ServerName = is.Source, is.Local, is.Name
	}
	return succession.Flow{
		ID: f.ID, State: string(f.State), Endpoint: f.Endpoint, Service: f.Service, LinkID: f.LinkID, Source: f.Source, Local: f.Local, Target: f.Target,
		Name: f.ServerName, Started: f.Started, ToTarget: f.ToTarget, ToClient: f.ToClient,
		Judged: is.Judged, ECH: is.ECH, Waits: is.Waits, Unread: is.Unread, For: is.Service, ForLink: is.LinkID, StandsAt: is.Target, FoundBy: is.By,
	}
}

// Retire gives this node's place to the process at the other end of c, which serves already: nothing more is accepted, and
// the flows that there are go on as that process allows, until [Node.Drain] and [Node.Close]. Where its end of c is
// closed, nobody can say any more which of them are still allowed: they end at once. Flows of UDP go on there where hands says
// that the process takes them ([succession.Hands]), and end otherwise.
func (n *Node) Retire(c *succession.Conn, hands bool) {
	n.change.Lock()
	defer n.change.Unlock()
	n.owed = nil
	n.apis.replace(nil)
	c.Patience(sendTime)
	n.passElders(c)
	settings := proxy.Settings{}
	if n.config.Proxy != nil {
		settings = *n.config.Proxy
	}
	h := &heir{node: n, conn: c, sent: make(map[string]succession.Flow), again: make(chan struct{}, 1), settled: make(chan struct{})}
	h.patience, h.giveUp = context.WithTimeout(context.Background(), settings.Leaving())
	h.hurry = sync.OnceFunc(func() { time.AfterFunc(settings.Drain(), h.giveUp) })
	n.heir.Store(h)
	if h.proxy = n.proxy.Load(); h.proxy == nil {
		close(h.settled)
		return
	}
	h.proxy.Retire(hands)
	context.AfterFunc(n.life, c.Interrupt)
	n.background.Go(h.hear)
	n.background.Go(h.tell)
	if hands {
		n.background.Go(h.hand)
	} else {
		close(h.settled)
	}
}

// Hurry shortens the time that flows have left after [Node.Retire] to that of the end of a process. It reports false
// before Retire.
func (n *Node) Hurry() bool {
	h := n.heir.Load()
	if h == nil {
		return false
	}
	h.hurry()
	return true
}

// heir is the process that has taken this one's place.
type heir struct {
	node     *Node
	proxy    *proxy.Proxy
	conn     *succession.Conn
	sent     map[string]succession.Flow // what it knows; of tell
	again    chan struct{}              // holds a token where it wants to be told everything
	settled  chan struct{}              // closed when it has all flows of UDP that it gets, and knows that
	patience context.Context            // until flows are reset
	giveUp   context.CancelFunc
	hurry    func()
	cause    atomic.Pointer[error] // why nothing can be sent to it; nil: it can
}

// broken ends the connection, which nothing can be sent on any more, and so the flows: hear finds out.
func (h *heir) broken(err error) {
	h.cause.CompareAndSwap(nil, &err)
	h.conn.Interrupt()
}

// hear is the goroutine that ends the flows that the other process doesn't allow.
func (h *heir) hear() {
	for {
		m, fds, err := h.conn.Receive()
		if err != nil {
			break
		}
		succession.CloseAll(fds)
		switch m.Kind {
		case succession.Cut:
			h.proxy.Revoke(m.IDs)
		case succession.Hush:
			h.proxy.Hush()
		case succession.Sync:
			select {
			case h.again <- struct{}{}:
			default:
			}
		}
	}
	if h.node.life.Err() == nil {
		what := "has ended"
		if err := h.cause.Load(); err != nil {
			what = "can't be told anything (" + (*err).Error() + ")"
		}
		h.node.log.Error("the process that has taken this one's place "+what+", and with it who says which flows may go on: they end now", "flows", h.proxy.Flows())
	}
	h.proxy.Reset()
	h.giveUp()
}

// How often the other process is told of changes: at first, and while flows are being decided, and when only their end is news.
const (
	tellSoon  = 50 * time.Millisecond
	tellEnded = 2 * time.Second
	// tellFirst is how long the first time is: a flow that was accepted last may not be among the live ones yet.
	tellFirst = 10 * time.Second
	// tellRest is how many times as long as a round there is none, where flows are very many.
	tellRest = 9
)

// tell is the goroutine that tells the other process which flows there are.
func (h *heir) tell() {
	first := time.Now().Add(tellFirst)
	for {
		began := time.Now()
		deciding, err := h.tellOnce()
		if err != nil {
			h.broken(err)
			return
		}
		wait := tellEnded
		if deciding || began.Before(first) {
			wait = min(tellEnded, max(tellSoon, tellRest*time.Since(began)))
		}
		select {
		case <-h.node.life.Done():
			return
		case <-h.again:
			clear(h.sent)
		case <-time.After(wait):
		}
	}
}

// tellOnce sends what the other process doesn't know yet. It reports whether a flow isn't decided yet.
func (h *heir) tellOnce() (deciding bool, err error) {
	var news []succession.Flow
	there := make(map[string]struct{}, len(h.sent))
	for f := range h.proxy.Own() {
		if f.State == proxy.FlowEnding || f.Protocol == link.UDP {
			continue
		}
		deciding = deciding || f.State != proxy.FlowEstablished
		there[f.ID] = struct{}{}
		is := told(f)
		if was, known := h.sent[f.ID]; !known || was.State != string(proxy.FlowEstablished) && !same(was, is) {
			h.sent[f.ID] = is
			news = append(news, is)
		}
	}
	var gone []string
	for id := range maps.Keys(h.sent) {
		if _, ok := there[id]; !ok {
			delete(h.sent, id)
			gone = append(gone, id)
		}
	}
	for some := range slices.Chunk(news, succession.MaxFlows) {
		if err := again(func() error { return h.conn.Send(succession.Message{Kind: succession.Flows, Flows: some}) }); err != nil {
			return false, err
		}
	}
	for some := range slices.Chunk(gone, succession.MaxIDs) {
		if err := again(func() error { return h.conn.Send(succession.Message{Kind: succession.Gone, IDs: some}) }); err != nil {
			return false, err
		}
	}
	return deciding, nil
}

// same reports whether two accounts of a flow differ in bytes alone.
func same(a, b succession.Flow) bool {
	a.ToTarget, a.ToClient = b.ToTarget, b.ToClient
	return reflect.DeepEqual(a, b)
}

// passElders gives the connections to processes before this one to the one after it. The caller holds change.
func (n *Node) passElders(to *succession.Conn) {
	for _, e := range n.eldersNow() {
		e.stop()
		<-e.ended
		if err := again(func() error { return e.conn.Pass(to) }); err != nil {
			n.log.Error("an earlier process can't be passed on; it ends its flows", "error", err)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				to.Interrupt() // it hangs: no second wait
			}
		}
		e.conn.Close()
	}
}
