package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

var schedules = flag.Int("schedules", 0, "how many random schedules TestSchedules tries; 0: as many as are done soon")

// choices makes a schedule: of a fuzzer's bytes, or of a seed. When the bytes are used up, nothing rare happens any more.
type choices struct {
	bytes  []byte
	random *rand.Rand
}

func (c *choices) pick(n int) int {
	if c.random != nil {
		return c.random.IntN(n)
	}
	if len(c.bytes) == 0 {
		return 0
	}
	v := int(c.bytes[0])
	if c.bytes = c.bytes[1:]; n > 256 && len(c.bytes) > 0 {
		v = v<<8 | int(c.bytes[0])
		c.bytes = c.bytes[1:]
	}
	return v % n
}

// rare is true once in n times.
func (c *choices) rare(n int) bool { return c.pick(n) == n-1 }

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

// newFlow chooses what the peers want, and what there is between them.
func newFlow(c choices, verbose bool) *flow {
	f := &flow{simKernel: &simKernel{choices: c, sockets: map[int]*simSocket{}, pipes: map[int]*simPipe{}}, answer: make(chan bool, 1), verbose: verbose}
	f.interrupts, f.failPipes, f.noSplice = f.rare(4), f.rare(6), f.rare(12)
	sizes := []int{1, 700, 4 << 10, 20 << 10, 64 << 10, 150 << 10}
	plans := []int{0, 1, 900, 40 << 10, 100 << 10, 300 << 10}
	newPeer := func(side Side) *peer {
		p := &peer{simSocket: f.socket(side, sizes[f.pick(6)], sizes[f.pick(6)]), plan: plans[f.pick(6)]}
		p.ends, p.resets, p.urges, p.deaf = !f.rare(4), f.rare(5), f.rare(5), f.rare(8)
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
	e := &epollEngine{stop: make(chan struct{})}
	e.pipes.kernel = f.simKernel
	f.loop = &loop{engine: e, kernel: f.simKernel, woken: true} // who is woken already isn't woken again
	f.near, f.far = newConn(f.loop, f.client.fd), newConn(f.loop, f.target.fd)
	f.between = func(fd int) { f.meanwhile(fd) }
	f.tell("client %+v\ntarget %+v\nheld %d, guarded %d %v, gated %d %v %v", *f.client, *f.target, f.held, f.guarded, f.guardFinds, f.gated, f.asks, f.refuses)
	return f
}

// start copies.
func (f *flow) start() {
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
	n := f.near.ReadNow(b[:1+f.pick(len(b))])
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
	p.wake()
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

// serve is what the goroutine of a loop does in a round.
func (f *flow) serve(worst bool) (did bool) {
	events, conns := make([]unix.EpollEvent, 4), make([]*conn, 4)
	n := f.events(events, worst)
	again := f.loop.again
	f.loop.again = nil
	if worst {
		f.meanwhile(0)
	}
	posted, _ := f.loop.resolve(events[:n], conns)
	for i, c := range conns[:n] {
		if c == nil {
			continue
		}
		f.tell("event %x of %d", events[i].Events, c.fd)
		if p := c.ready(events[i].Events); p != nil {
			f.loop.turn(p)
			f.bounds()
		}
	}
	for _, p := range append(posted, again...) {
		f.tell("a turn")
		f.loop.turn(p)
		f.bounds()
	}
	return n+len(posted)+len(again) > 0
}

// bounds checks what is always true between two turns.
func (f *flow) bounds() {
	if len(f.ended) == 0 {
		for _, d := range []*direction{&f.pair.up, &f.pair.down} {
			if n := len(d.held) + d.piped; (d.piped > 0) != (d.pipe != nil) || n > 64<<10 {
				f.fault("%d bytes are held, %d of them in a pipe", n, d.piped)
			}
			if d.pooled != nil && len(d.held) == 0 {
				f.fault("a buffer with nothing in it is held")
			}
		}
		if n := f.client.read - f.target.written; n > 64<<10 {
			f.fault("%d bytes of the client are between", n)
		}
		if n := f.target.read - f.client.written; n > 64<<10 {
			f.fault("%d bytes of the target are between", n)
		}
	}
	if !f.passed.Load() && f.target.written > 0 && !f.client.fin && !(f.gated > 0 && f.target.fin) {
		f.fault("%d bytes passed a gate that is shut", f.target.written)
	}
	if a, b := f.toTarget.Load(), f.toClient.Load(); a != int64(f.target.written) || b != int64(f.client.written) {
		f.fault("counted %d and %d bytes, moved %d and %d", a, b, f.target.written, f.client.written)
	}
}

// reply answers Ask.
func (f *flow) reply() bool {
	f.pair.mu.Lock()
	asking := f.pair.gate == Asking && f.answer != nil
	f.pair.mu.Unlock()
	if !asking {
		return false
	}
	f.tell("the answer is %v", !f.refuses)
	f.answer <- !f.refuses
	f.loop.engine.asking.Wait()
	f.answer = nil
	return true
}

// run lets everybody do what they like for some time, and then all that they can, until nobody can do anything.
func (f *flow) run() {
	f.start()
	for range 20 + f.pick(200) {
		switch f.pick(12) {
		case 0, 1, 2:
			f.act(f.client)
		case 3, 4, 5:
			f.act(f.target)
		case 6:
			if f.rare(3) {
				f.reply()
			}
		case 7:
			if f.rare(60) {
				f.tell("revoked")
				f.revoked = true
				f.near.Reset()
				f.far.Reset()
			}
		default:
			f.serve(true)
		}
	}
	f.between, f.interrupts = nil, false
	for range 5000 {
		did := f.serve(false)
		did = f.reply() || did
		for _, p := range []*peer{f.client, f.target} {
			did = f.send(p, p.rxLimit) || did
			did = f.finish(p) || did
			did = !p.deaf && f.hear(p, len(p.tx)) || did
		}
		if !did {
			return
		}
	}
	f.fault("it never comes to rest")
}

// verdict checks where it has come to.
func (f *flow) verdict() error {
	c, t := f.client, f.target
	broken := f.revoked || c.dead || t.dead || f.refuses && f.answer == nil
	caught := f.guarded > 0 && f.guardFinds && len(f.ended) > 0 && f.ended[0].Guarded
	deaf := c.deaf || t.deaf
	switch {
	case len(f.ended) > 1:
		f.fault("ended %d times", len(f.ended))
	case caught:
		if t.got > 0 {
			f.fault("%d bytes passed the guard", t.got)
		}
	case broken && len(f.ended) == 0 && !deaf:
		f.fault("a broken pair doesn't end")
	case broken || deaf:
	case c.fin && t.fin:
		if len(f.ended) == 0 || f.ended[0].Broken != Nobody || f.ended[0].Guarded || f.ended[0].First == Nobody {
			f.fault("both have ended, and the pair %+v", f.ended)
		}
		fallthrough
	default:
		if f.passed.Load() && t.got != c.sent || c.got != t.sent {
			f.fault("%d of %d and %d of %d bytes came", t.got, c.sent, c.got, t.sent)
		}
		if c.fin && f.passed.Load() && !t.heardEnd || t.fin && !c.heardEnd {
			f.fault("an end wasn't passed on")
		}
	}
	if len(f.ended) > 0 && (broken || caught) && f.ended[0] != (End{First: f.ended[0].First}) && !(c.reset && t.reset) {
		f.fault("ended %+v, and not with resets", f.ended[0])
	}
	f.close()
	if len(f.faults) == 0 {
		return nil
	}
	return errors.New(f.faults[0])
}

// close ends the flow and the engine, and looks at what is left.
func (f *flow) close() {
	f.near.Reset()
	f.far.Reset()
	for range 100 {
		f.serve(false)
		f.reply()
	}
	if len(f.ended) != 1 {
		f.fault("ended %d times", len(f.ended))
	}
	f.loop.engine.asking.Wait()
	f.loop.engine.pipes.close()
	for _, p := range f.pipes {
		if p.r || p.w {
			f.fault("a pipe is left open")
			break
		}
	}
	for _, d := range []*direction{&f.pair.up, &f.pair.down} {
		if d.pipe != nil || d.pooled != nil {
			f.fault("something is still held")
		}
	}
	for _, s := range f.loop.slots {
		if s.conn != nil {
			f.fault("a slot isn't free")
		}
	}
}

// schedule runs one, and returns what was wrong, and what happened if that is asked for.
func schedule(c choices, verbose bool) (wrong error, story string) {
	f := newFlow(c, verbose)
	f.run()
	wrong = f.verdict()
	return wrong, f.story.String()
}

// Whatever a kernel and two peers do: bytes arrive in order and once, none behind a shut gate, the end comes after all of them
// and a reset as a reset; nothing stands still that could move; 64 KiB are held of a direction at most, and nothing in the end.
func TestSchedules(t *testing.T) {
	base := rand.Uint64()
	n := *schedules
	switch {
	case n > 0:
	case raceDetector, testing.Short(): // one goroutine at a time does all of it
		n = 500
	default:
		n = 10_000
	}
	for i := range n {
		seed := base + uint64(i)
		if err, _ := schedule(choices{random: rand.New(rand.NewPCG(seed, 0))}, false); err != nil {
			_, story := schedule(choices{random: rand.New(rand.NewPCG(seed, 0))}, true)
			t.Fatalf("seed %d: %v\n%s", seed, err, story)
		}
	}
}

// FuzzSchedule is TestSchedules with schedules that somebody looks for.
func FuzzSchedule(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 100<<seed%4)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err, _ := schedule(choices{bytes: b}, false); err != nil {
			_, story := schedule(choices{bytes: b}, true)
			t.Fatalf("%v\n%s", err, story)
		}
	})
}
