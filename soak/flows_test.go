package soak

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// kind is a kind of flow. Each has a service of its own.
type kind struct {
	name    string
	clients int // at one time

	up, down     int           // bytes each way at most, at random
	trips        int           // questions of 100 bytes and as many answers, instead
	pause        time.Duration // between two pieces that the client reads, or two questions
	late         bool          // the target answers when the client has ended
	clientResets bool
	targetResets bool
	silent       bool // the target accepts nothing
	flaps        bool // the target comes and goes
	cut          bool // goes on until the approval is taken back
	crowd        bool // comes at once, now and then, and is more than there are descriptors for
}

var kinds = [...]kind{
	{name: "bulk", clients: 3, up: 24 << 20, down: 24 << 20},
	{name: "large", clients: 1, up: 256 << 20, down: 256 << 20},
	{name: "requests", clients: 8, trips: 200},
	{name: "short", clients: 4, up: 300, down: 3000},
	{name: "idle", clients: 100, trips: 2, pause: 8 * time.Second},
	{name: "slow", clients: 10, down: 4 << 20, pause: 20 * time.Millisecond},
	{name: "half", clients: 5, up: 300 << 10, down: 300 << 10, late: true},
	{name: "client-resets", clients: 3, up: 500 << 10, down: 500 << 10, clientResets: true},
	{name: "target-resets", clients: 3, up: 500 << 10, down: 500 << 10, targetResets: true},
	{name: "black-hole", clients: 3, up: 100, silent: true},
	{name: "flapping", clients: 5, up: 100 << 10, down: 100 << 10, flaps: true},
	{name: "cut", clients: 20, trips: 1 << 30, pause: 50 * time.Millisecond, cut: true},
	{name: "crowd", trips: 5, pause: time.Second, crowd: true},
}

func (k kind) endpoint() net.IP {
	return net.IPv4(127, 30, 0, byte(10+slices.IndexFunc(kinds[:], func(o kind) bool { return o.name == k.name })))
}

// flow is one of both ends.
type flow struct {
	kind        kind
	id          uint64 // and the seed of what is sent
	up, down    int
	established atomic.Bool // something came from the target
	reached     atomic.Bool // the target knows of it
	far         chan error  // what the target has seen; nil where all was as it should
}

// content is what is sent one way in a flow.
func (f *flow) content(down bool) *rand.ChaCha8 {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], f.id)
	if down {
		seed[31] = 1
	}
	return rand.NewChaCha8(seed)
}

// quiet is how long nothing may move.
const quiet = 60 * time.Second

var errOther = errors.New("other bytes came than were sent")

// stall is a pause now and then, and seldom a long one.
func stall() {
	switch r := rand.IntN(4000); {
	case r == 0:
		time.Sleep(rand.N(time.Second))
	case r < 20:
		time.Sleep(rand.N(20 * time.Millisecond))
	}
}

// pour sends n bytes.
func pour(c *net.TCPConn, from *rand.ChaCha8, n int) error {
	b := make([]byte, min(n, 64<<10))
	for n > 0 {
		piece := b[:min(n, len(b))]
		from.Read(piece)
		c.SetWriteDeadline(time.Now().Add(quiet))
		if _, err := c.Write(piece); err != nil {
			return err
		}
		n -= len(piece)
		stall()
	}
	return nil
}

// drink reads until the end, with pauses, compares, and counts.
func drink(c *net.TCPConn, want *rand.ChaCha8, pause time.Duration, first func(), count *atomic.Int64) (got int, err error) {
	b := make([]byte, 64<<10)
	expected := make([]byte, len(b))
	for {
		c.SetReadDeadline(time.Now().Add(quiet))
		n, err := c.Read(b)
		if n > 0 && first != nil {
			first()
			first = nil
		}
		want.Read(expected[:n])
		if got += n; !bytes.Equal(b[:n], expected[:n]) {
			return got, errOther
		}
		count.Add(int64(n))
		if err == io.EOF {
			return got, nil
		} else if err != nil {
			return got, err
		}
		time.Sleep(pause)
		stall()
	}
}

// reset reports whether an error is that of a connection that was reset: ENOTCONN is what shutdown says of one.
func reset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}

// client has one flow, and returns whether it came about.
func (w *world) client(k kind, i int, end time.Time) (established bool) {
	f := &flow{kind: k, id: w.next.Add(1), far: make(chan error, 1)}
	f.up, f.down = random(k.up), random(k.down)
	asked, allowed := time.Now(), w.allowed.Load()
	w.flows.Store(f.id, f)
	defer w.flows.Delete(f.id)
	err := w.talk(f, end)
	switch far := f.established.Load(); {
	case err != nil && !f.reached.Load() && w.crowded(asked): // it found no descriptor, which whoever has come so far doesn't notice
		return false
	case k.silent:
		if !reset(err) || time.Since(asked) > quiet/2 {
			w.fault("%s: %v after %v, want a reset", k.name, err, time.Since(asked))
		}
		return false
	case k.flaps && reset(err):
		return false
	case k.cut && reset(err) && (w.changed.Load() > asked.Add(-cutWithin).UnixNano() || !allowed || !w.allowed.Load()):
		return far
	case err != nil:
		w.fault("%s %d, %v after it began: %v", k.name, f.id, time.Since(asked).Round(time.Millisecond), err)
		return false
	}
	return true
}

// talk is the client's part. The node accepts before it decides, so that a connection is reset at the earliest.
func (w *world) talk(f *flow, end time.Time) error {
	c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: f.kind.endpoint(), Port: int(w.ports)})
	if err != nil {
		return err
	}
	defer c.Close()
	var hello [8]byte
	binary.BigEndian.PutUint64(hello[:], f.id)
	if _, err = c.Write(hello[:]); err != nil {
		return err
	}
	if f.kind.trips > 0 {
		return w.ask(c, f, end)
	}
	return w.carry(c, f)
}

func random(most int) int {
	if most == 0 {
		return 0
	}
	return 1 + rand.IntN(most)
}

// ask is a conversation of questions and answers.
func (w *world) ask(c *net.TCPConn, f *flow, end time.Time) error {
	content, question, answer := f.content(false), make([]byte, 100), make([]byte, 100)
	for range f.kind.trips {
		content.Read(question)
		c.SetDeadline(time.Now().Add(quiet))
		if _, err := c.Write(question); err != nil {
			return fmt.Errorf("asking: %w", err)
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			return fmt.Errorf("being answered: %w", err)
		}
		f.established.Store(true)
		if !bytes.Equal(question, answer) {
			return errOther
		}
		w.up.Add(100)
		if w.down.Add(100); f.kind.pause > 0 && w.past(end) {
			break
		}
		time.Sleep(f.kind.pause)
	}
	c.CloseWrite()
	if n, err := c.Read(answer); n != 0 || err != io.EOF {
		return fmt.Errorf("at the end %d bytes, %w", n, err)
	}
	return nil
}

// carry sends and receives at the same time.
func (w *world) carry(c *net.TCPConn, f *flow) error {
	poured := make(chan error, 1)
	go func() {
		err := pour(c, f.content(false), f.up)
		if f.kind.clientResets {
			c.SetLinger(0)
			c.Close()
		} else if err == nil {
			err = c.CloseWrite()
		}
		poured <- err
	}()
	got, err := drink(c, f.content(true), f.kind.pause, func() { f.established.Store(true) }, &w.down)
	sent := <-poured
	switch {
	case errors.Is(err, errOther):
		return err
	case f.kind.clientResets: // what the target has seen counts
		return f.heard("a reset")
	case f.kind.targetResets:
		if !reset(err) && !errors.Is(sent, syscall.ECONNRESET) { // the first who asks is told
			return fmt.Errorf("%d of %d bytes, then %v; a reset was to come", got, f.down, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("%d of %d bytes came: %w", got, f.down, err)
	case f.kind.flaps && sent != nil:
		return sent
	case sent != nil:
		return fmt.Errorf("sending: %w", sent)
	case got != f.down && !(f.kind.flaps && got == 0 && f.down == 0):
		return fmt.Errorf("the end after %d of %d bytes", got, f.down)
	}
	return f.heard("the end")
}

// heard waits for what the target has seen.
func (f *flow) heard(what string) error {
	select {
	case err := <-f.far:
		return err
	case <-time.After(quiet):
		return errors.New("the target isn't told of " + what)
	}
}
