package engine

import (
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// pair is two connections that are copied. The loop of both gives it a turn when epoll has told of one of
// them; between two turns it holds bytes only where the receiver takes no more.
type pair struct {
	Copy
	client, target *conn

	mu       sync.Mutex // one turn at a time
	up, down direction
	first    Side
	gate     Gate // Shut: the client is gated, and Watch looks on
	more     bool // there is something to do after this turn that epoll doesn't tell: a gate has opened, or a stream is none any more
	refused  bool // Ask has ended the flow
	over     bool // Ended was called, or is about to be
	starting bool // the turn may be of who started
	listed   bool // among those of the loop with a stream
}

// direction is one way of a pair.
type direction struct {
	src, dst *conn
	from, to Side
	held     []byte // bytes to be written before all others, in a buffer of their own or a pooled one
	pooled   *[bufferSize]byte
	pipe     *pipe // with piped bytes in it, else nil
	piped    int
	bulk     bool  // the last read was full: splice
	low      bool  // a stream: epoll tells of much at once
	run      int64 // bytes moved since the other direction had some
	seen     int64 // run at the last tick
	guarding bool  // held is what Guard was asked about
	gated    bool  // nothing is read
	eof      bool  // src has ended
	done     bool  // and dst was told so
}

// Copy implements [Engine].
func (e *epollEngine) Copy(c Copy) { newPair(c).start() }

func newPair(c Copy) *pair {
	p := &pair{Copy: c, client: c.Client.(*conn), target: c.Target.(*conn), starting: true}
	p.up = direction{src: p.client, dst: p.target, from: Client, to: Target, held: c.Held}
	p.down = direction{src: p.target, dst: p.client, from: Target, to: Client}
	p.up.guarding, p.up.gated = c.Guard != nil, c.Watch != nil
	if !p.up.gated {
		p.gate = Open
	}
	return p
}

// start takes the first turn, if there is something to do. From join on, the loop may take turns too.
func (p *pair) start() {
	now := len(p.Held) > 0 && p.Watch == nil
	now = p.client.join(p) || now
	now = p.target.join(p) || now
	defer p.started()
	if !now {
		return // epoll tells
	}
	// The first turn is taken here, where the connections are at hand.
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	if p.step(p.client.loop, b[:]) {
		p.client.loop.post(p)
	}
}

// started says that turns are the loop's from now on.
func (p *pair) started() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting = false
}

// join makes a connection one of a pair. It reports whether the loop has to look at it though epoll may
// have nothing to tell.
func (c *conn) join(p *pair) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pair = p
	switch {
	case c.fd < 0:
		return true // revoked on the way here
	case c.watched&watchIn == watchIn:
		return c.in
	}
	c.in = false // epoll tells, if there is something
	return c.watch(watchIn) != nil
}

// part ends what join began: closing the connection needs no look of the loop any more.
func (c *conn) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pair = nil
}

// turns is how often a direction may be filled before others have their turn.
const turns = 16

// step is a turn of the pair, with a buffer to use in it. It reports whether there is more to do at once.
func (p *pair) step(l *loop, buf []byte) (more bool) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return false
	}
	end := End{}
	upMore, err := p.way(&p.up, l, buf)
	downMore := false
	if err == nil {
		downMore, err = p.way(&p.down, l, buf)
	}
	if fail, ok := err.(*sideError); ok { // it comes as it is, and is asked for in each turn
		end.Broken = fail.side
	} else if err != nil {
		end.Guarded = true
	}
	p.over = err != nil || p.up.done && p.down.done
	over := p.over
	more, p.more = upMore || downMore || p.more, false
	if over {
		end.First = p.first
		p.up.drop(l)
		p.down.drop(l)
	}
	p.mu.Unlock()
	if over {
		p.client.part()
		p.target.part()
		p.Ended(end)
		return false
	}
	return more
}

// sideError says whose connection failed.
type sideError struct{ side Side }

func (e *sideError) Error() string { return "connection failed" }

var (
	errClient = &sideError{Client}
	errTarget = &sideError{Target}
)

func broken(s Side) error {
	if s == Client {
		return errClient
	}
	return errTarget
}

// way moves what can be moved in one direction.
func (p *pair) way(d *direction, l *loop, buf []byte) (more bool, err error) {
	from := d.run
	for range turns {
		if d.low && d.run-from >= turns*spliceSize {
			break
		}
		switch {
		case d.done:
			if d.src.failed() { // there is nothing to be read or written that would say so
				return false, broken(d.from)
			}
			return false, nil
		case d.gated:
			if wait, err := p.gatedEnd(d); wait || err != nil {
				return false, err
			}
		case d.pipe != nil:
			blocked, err := p.flushPipe(d, l)
			if blocked || err != nil {
				return false, err
			}
		case len(d.held) > 0 && !d.guarding:
			blocked, err := p.flush(d)
			if blocked || err != nil {
				return false, err
			}
		case d.eof:
			if p.first == Nobody {
				p.first = d.from
			}
			// Where the other way is done too, the end of both connections is all that there is left to say.
			if other := p.other(d); !other.done && d.dst.CloseWrite() != nil {
				return false, broken(d.to)
			}
			d.done = true
		default:
			if wait, err := p.fill(d, l, buf); wait || err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// fill takes bytes from src, and gives them to dst where they were read. It reports whether there are
// none now.
func (p *pair) fill(d *direction, l *loop, buf []byte) (wait bool, err error) {
	if d.guarding {
		return p.guard(d, buf)
	}
	if d.bulk {
		return p.splice(d, l)
	}
	n, err := d.src.take(buf)
	switch {
	case err == io.EOF:
		d.eof = true
		if d == &p.down && p.gate == Shut {
			p.open(Open) // there is nothing that could be asked any more
		}
		return false, nil
	case err == errWait:
		return true, nil
	case err != nil:
		return false, broken(d.from)
	}
	if d == &p.down && p.gate == Shut {
		p.open(p.Watch(buf[:n]))
	}
	d.bulk = n == len(buf) && !l.engine.pipes.useless()
	return false, p.send(d, buf[:n])
}

// open is told what Watch has said. The client has its turn after the target's.
func (p *pair) open(g Gate) {
	if p.gate = g; g == Shut {
		return
	}
	if g == Open {
		p.up.gated, p.more = false, true
		return
	}
	l := p.client.loop
	l.engine.asking.Go(func() {
		held, ok := p.Ask()
		p.mu.Lock()
		p.up.held, p.up.gated, p.refused = held, !ok, !ok
		p.mu.Unlock()
		l.post(p)
	})
}

// gatedEnd passes on the end of a client that sent nothing more. It reports whether there is nothing to do.
func (p *pair) gatedEnd(d *direction) (wait bool, err error) {
	switch {
	case p.refused:
		return false, broken(d.from) // the other way may have ended long ago, and says nothing
	case p.gate != Shut:
		return true, nil // who asks sees it
	}
	switch err := d.src.over(); {
	case err == io.EOF && len(d.held) == 0:
		d.gated, d.eof = false, true
		return false, nil
	case err == nil, err == io.EOF:
		return true, nil
	}
	return false, broken(d.from)
}

// other returns the other direction.
func (p *pair) other(d *direction) *direction {
	if d == &p.up {
		return &p.down
	}
	return &p.up
}

// send gives n bytes to dst and keeps those that it doesn't take.
func (p *pair) send(d *direction, b []byte) error {
	sent, err := d.dst.give(b)
	if err != nil && err != errWait {
		return broken(d.to)
	}
	p.moved(d, sent)
	if sent < len(b) {
		d.pooled = buffers.Get().(*[bufferSize]byte)
		d.held = d.pooled[:copy(d.pooled[:], b[sent:])]
	}
	return nil
}

// guard takes the first bytes of the client, until Guard is sure of them.
func (p *pair) guard(d *direction, buf []byte) (wait bool, err error) {
	is, maybe := p.Guard(d.held)
	switch {
	case is:
		return false, errGuarded
	case !maybe || len(d.held) >= p.GuardSize:
		d.guarding = false
		return false, nil
	}
	have := copy(buf, d.held)
	n, err := d.src.take(buf[have:])
	switch {
	case err == io.EOF:
		d.guarding, d.eof = false, true // it is nothing that Guard looks for
		return false, nil
	case err == errWait:
		return true, nil
	case err != nil:
		return false, broken(d.from)
	}
	p.note(d.to, 0)
	b := buf[:have+n]
	if is, maybe = p.Guard(b); is {
		return false, errGuarded
	}
	if maybe && len(b) < p.GuardSize {
		d.held = append([]byte(nil), b...)
		return false, nil
	}
	d.guarding, d.held = false, nil
	return false, p.send(d, b)
}

// flush writes what is held. It reports whether dst takes no more now.
func (p *pair) flush(d *direction) (blocked bool, err error) {
	n, err := d.dst.give(d.held)
	if err != nil && err != errWait {
		return false, broken(d.to)
	}
	p.moved(d, n)
	if d.held = d.held[n:]; len(d.held) > 0 {
		return err == errWait, nil
	}
	d.held = nil
	if d.pooled != nil {
		buffers.Put(d.pooled)
		d.pooled = nil
	}
	return false, nil
}

// splice moves bytes from src into a pipe.
func (p *pair) splice(d *direction, l *loop) (wait bool, err error) {
	pipe := l.engine.pipes.get()
	if pipe == nil {
		d.small()
		return false, nil
	}
	p.lower(d, l)
	n, err := d.src.spliceTo(pipe, d.piece(&l.engine.streams))
	if n > 0 {
		if d.pipe, d.piped = pipe, n; n < quietSize {
			d.small()
		}
		return false, nil
	}
	l.engine.pipes.put(pipe) // still empty
	switch err {
	case errWait:
		return true, nil
	case errNoSplice:
		d.small()
		return false, nil
	case unix.EINVAL:
		l.engine.pipes.disable()
		d.small()
		return false, nil
	}
	return false, broken(d.from)
}

// small ends bulk for now.
func (d *direction) small() {
	d.bulk = false
	d.heighten()
}

// flushPipe moves bytes from the pipe to dst.
func (p *pair) flushPipe(d *direction, l *loop) (blocked bool, err error) {
	for d.piped > 0 {
		n, err := d.dst.spliceFrom(d.pipe, d.piped)
		if err == errWait {
			return true, nil
		}
		if err != nil {
			return false, broken(d.to)
		}
		d.piped -= n
		p.moved(d, n)
	}
	l.engine.pipes.put(d.pipe)
	d.pipe = nil
	return false, nil
}

// drop gives back what a direction still holds at the end.
func (d *direction) drop(l *loop) {
	if d.pipe != nil {
		d.pipe.close() // there are bytes in it
		d.pipe = nil
	}
	if d.pooled != nil {
		buffers.Put(d.pooled)
		d.pooled = nil
	}
	d.held = nil
}
