package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// peer is one end of a flow, outside.
type peer struct {
	*simSocket
	plan     int // bytes that it sends
	sent     int
	ends     bool // after that
	resets   bool // it may, at any time
	urges    bool // it sends urgent data now and then
	deaf     bool // it doesn't read in the end
	got      int
	heardEnd bool
}

// flow is a pair in the simulated kernel.
type flow struct {
	*simKernel
	loop           *loop
	client, target *peer
	near, far      *conn
	pair           *pair
	toTarget       atomic.Int64
	toClient       atomic.Int64
	moved          atomic.Bool
	held           int // bytes of the client that were read before
	guarded        int // Guard is sure after so many bytes; 0: there is none
	guardFinds     bool
	gated          int // Watch is sure after so many bytes; 0: there is none
	asks, refuses  bool
	heard          int         // what Watch was shown
	passed         atomic.Bool // what the client sends may pass
	answer         chan bool
	revoked        bool
	ended          []End
	inCall         bool
	verbose        bool
	story          bytes.Buffer
}

// streams is what the sides send.
var streams = func() (s [Target + 1][]byte) {
	for _, side := range []Side{Client, Target} {
		s[side] = make([]byte, 400<<10)
		rand.NewChaCha8([32]byte{byte(side)}).Read(s[side])
	}
	return s
}()

func (f *flow) tell(format string, args ...any) {
	if f.verbose {
		fmt.Fprintf(&f.story, format+"\n", args...)
	}
}

// simMost is how many bytes are moved at once of a stream.
const simMost = 100 << 10

// newFlow chooses what the peers want, and what there is between them.
func newFlow(c choices, verbose bool) *flow {
	f := &flow{simKernel: &simKernel{choices: c, sockets: map[int]*simSocket{}, pipes: map[int]*simPipe{}}, answer: make(chan bool, 1), verbose: verbose}
	f.interrupts, f.failPipes, f.noSplice = f.rare(4), f.rare(6), f.rare(12)
	sizes := []int{1, 700, 4 << 10, 20 << 10, 64 << 10, 150 << 10}
	plans := []int{0, 1, 900, 40 << 10, 100 << 10, 300 << 10}
	newPeer := func(side Side) *peer {
		p := &peer{simSocket: f.socket(side, sizes[f.pick(6)], sizes[f.pick(6)]), plan: plans[f.pick(6)]}
		p.ends, p.resets, p.urges, p.deaf = !f.rare(3), f.rare(5), f.rare(3), f.rare(8)
		if p.rxLimit == 1 || p.txLimit == 1 {
			p.plan = min(p.plan, 900)
		}
		return p
	}
	f.client, f.target = newPeer(Client), newPeer(Target)
	if f.client.txLimit == 1 {
		f.target.plan = min(f.target.plan, 900)
	}
	if f.target.txLimit == 1 {
		f.client.plan = min(f.client.plan, 900)
	}
	if f.rare(3) { // what becomes a stream
		for _, p := range []*peer{f.client, f.target} {
			p.rxLimit, p.txLimit, p.plan, p.urges, p.resets = 150<<10, 150<<10, p.plan%1000, false, false
		}
		[]*peer{f.client, f.target}[f.pick(2)].plan = len(streams[Client]) - 3000 - f.pick(100<<10)
	}
	if f.rare(3) {
		f.held = f.pick(2000)
		f.client.sent, f.client.read = f.held, f.held
		f.client.plan += f.held
	}
	switch f.pick(4) {
	case 1:
		f.guarded, f.guardFinds = 1+f.pick(1000), f.rare(3)
	case 2:
		f.gated = 1 + f.pick(500)
		f.asks, f.refuses = f.rare(2), f.rare(3)
	}
	e := &epollEngine{stop: make(chan struct{}), streams: streaming{after: []int64{1, 60 << 10, 1 << 30}[f.pick(3)], low: []int{2, 5000, 90 << 10}[f.pick(3)], most: simMost}}
	e.pipes.kernel = f.simKernel
	f.loop = &loop{engine: e, kernel: f.simKernel, woken: true} // who is woken already isn't woken again
	f.near, f.far = newConn(f.loop, f.client.fd), newConn(f.loop, f.target.fd)
	f.between = func(fd int) { f.meanwhile(fd) }
	f.tell("client %+v\ntarget %+v\nheld %d, guarded %d %v, gated %d %v %v", *f.client, *f.target, f.held, f.guarded, f.guardFinds, f.gated, f.asks, f.refuses)
	return f
}

// start copies.
func (f *flow) start() {
	f.before()
	c := Copy{Client: f.near, Target: f.far, ToTarget: &f.toTarget, ToClient: &f.toClient, Moved: &f.moved, Ended: f.end}
	if f.held > 0 {
		c.Held = streams[Client][:f.held:f.held]
	}
	if f.guarded > 0 {
		c.GuardSize = 1200
		c.Guard = func(b []byte) (is, maybe bool) {
			f.check(Client, b, 0)
			if len(b) < f.guarded {
				return false, true
			}
			f.passed.Store(!f.guardFinds)
			return f.guardFinds, false
		}
	}
	if f.gated > 0 {
		c.Watch = func(b []byte) Gate {
			f.check(Target, b, f.heard)
			switch f.heard += len(b); {
			case f.heard < f.gated:
				return Shut
			case f.asks:
				return Asking
			}
			f.passed.Store(true)
			return Open
		}
		c.Ask = f.ask
	}
	f.passed.Store(c.Guard == nil && c.Watch == nil)
	f.pair = newPair(c)
	f.pair.start()
}

// before is what has happened before anything is copied: somebody may have waited for either and left it in the epoll, and read.
func (f *flow) before() {
	for _, before := range []struct {
		c      *conn
		events uint32
	}{{f.near, watchIn}, {f.far, watchOut}} {
		c, events := before.c, before.events
		if f.rare(2) {
			c.mu.Lock()
			c.in, c.out = c.in && events != watchIn, c.out && events != watchOut
			c.watch(events)
			c.mu.Unlock()
		}
	}
	for range f.pick(10) {
		f.act(f.client)
		f.act(f.target)
		f.serve(true)
	}
	if f.held > 0 || f.rare(4) {
		b := make([]byte, 900)
		n, _ := f.near.ReadNow(b[:1+f.pick(len(b))])
		f.check(Client, b[:n], f.held)
		f.held += n
	}
}

// ask reads more of the client, if there is more, when it is told to answer.
func (f *flow) ask() ([]byte, bool) {
	ok := <-f.answer
	if !ok {
		f.near.Reset()
		f.far.Reset()
		return nil, false
	}
	held := streams[Client][:f.held:f.held]
	b := make([]byte, 1500)
	n, _ := f.near.ReadNow(b[:1+f.pick(len(b))])
	f.passed.Store(true)
	return append(held, b[:n]...), true
}

func (f *flow) end(e End) {
	f.tell("ended %+v", e)
	if f.ended = append(f.ended, e); e.Broken != Nobody || e.Guarded {
		f.near.Reset()
		f.far.Reset()
	}
	f.near.Close()
	f.far.Close()
}

// check compares bytes with those that were sent.
func (f *flow) check(from Side, b []byte, at int) {
	if !bytes.Equal(b, streams[from][at:at+len(b)]) {
		f.fault("not all bytes %d to %d of side %d are what was sent", at, at+len(b), from)
	}
}

// meanwhile is what others do during a system call of the engine.
func (f *flow) meanwhile(fd int) {
	if f.inCall {
		return
	}
	f.inCall = true
	if f.rare(6) {
		f.act(f.client)
	}
	if f.rare(6) {
		f.act(f.target)
	}
	f.inCall = false
}

// other returns the peer at the other end.
func (f *flow) other(p *peer) *peer {
	if p == f.client {
		return f.target
	}
	return f.client
}

// act is something that a peer does.
func (f *flow) act(p *peer) {
	switch f.pick(8) {
	case 0, 1, 2:
		f.send(p, 1+f.pick([]int{10, 1500, 60_000}[f.pick(3)]))
	case 3, 4:
		f.hear(p, 1+f.pick([]int{10, 3000, 100_000}[f.pick(3)]))
	case 5:
		f.finish(p)
	case 6:
		if p.urges && !p.fin && !p.dead && !p.closed && p.urgent < 0 {
			f.tell("%d urges", p.side)
			p.urgent = len(p.rx)
			p.wake()
		}
	case 7:
		if p.resets && !p.closed && f.rare(8) {
			f.resets(p)
		}
	}
}

func (f *flow) send(p *peer, n int) (sent bool) {
	n = min(n, p.plan-p.sent, p.rxLimit-len(p.rx))
	if n <= 0 || p.fin || p.dead || p.closed {
		return false
	}
	f.tell("%d sends %d", p.side, n)
	p.rx = append(p.rx, streams[p.side][p.sent:p.sent+n]...)
	p.sent += n
	for n > 0 {
		slot := min(n, 1+f.pick(1460))
		p.slots = append(p.slots, slot)
		n -= slot
	}
	if p.poll()&unix.EPOLLIN != 0 {
		p.wake()
	}
	return true
}

func (f *flow) hear(p *peer, n int) bool {
	if p.dead || p.heardEnd || p.reset {
		return false // what is on its way is lost
	}
	n = min(n, len(p.tx))
	other := f.other(p)
	if n == 0 {
		if p.shut || p.closed {
			p.heardEnd = true
			if f.tell("%d hears the end", p.side); !other.fin || p.got != other.sent {
				f.fault("side %d hears the end after %d of %d bytes; the other has ended: %v", p.side, p.got, other.sent, other.fin)
			}
			return true
		}
		return false
	}
	f.check(other.side, p.tx[:n], p.got)
	p.tx = p.tx[n:]
	f.tell("%d hears %d", p.side, n)
	p.got += n
	p.room()
	return true
}

func (f *flow) finish(p *peer) bool {
	if p.sent < p.plan || !p.ends || p.fin || p.dead || p.closed {
		return false
	}
	f.tell("%d ends", p.side)
	p.fin = true
	p.wake()
	return true
}

func (f *flow) resets(p *peer) {
	if p.dead || p.fin && p.shut {
		return
	}
	f.tell("%d resets", p.side)
	p.dead, p.err = true, unix.ECONNRESET
	p.tx, p.noSpace = nil, false
	p.wake()
}
