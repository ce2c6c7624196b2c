package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"golang.org/x/sys/unix"
)

// cutBound is what is promised for 10,000 flows. A machine that does other things besides gets more.
const cutBound = 2 * time.Second

// tcpState returns the state of a socket (tcp_states.h); what the kernel doesn't know any more is closed.
func tcpState(c *net.TCPConn) uint8 {
	state := uint8(unix.BPF_TCP_CLOSE)
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				state = info.State
			}
		})
	}
	return state
}

// roomFor lets the test have n descriptors if the system does, and returns how many there may be.
func roomFor(t *testing.T, n int) int {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if was.Cur < uint64(n) {
		next := unix.Rlimit{Cur: uint64(n), Max: max(was.Max, uint64(n))}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &next) != nil { // who isn't root has the hard limit
			next = unix.Rlimit{Cur: was.Max, Max: was.Max}
			unix.Setrlimit(unix.RLIMIT_NOFILE, &next)
		}
		t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
	}
	return descriptorLimit()
}

// hangs is a policy program that answers for services whose ID begins with "program" when it is let go.
type hangs struct {
	waiting atomic.Int32
	release chan struct{}
}

func (h *hangs) Authorize(ctx context.Context, q policy.Question) policy.Answer {
	if q.Verdict.Service.ID[:2] != "pr" {
		return policy.Answer{Allow: true}
	}
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	select {
	case <-h.release:
		return policy.Answer{Allow: true}
	case <-ctx.Done():
		return policy.Answer{Reason: policy.PolicyError}
	}
}

func (*hangs) Review(context.Context, policy.Review) policy.Decision { return policy.Decision{} }
func (*hangs) Changed(*link.Snapshot)                                {}

// cutFlow is one flow of the crowd: its sockets, far nil where nothing is dialled.
type cutFlow struct{ client, far *net.TCPConn }

// crowd are the flows of one state, all of one service.
type crowd struct {
	state *cutState
	id    link.ID // of endpoint and service
	addr  string
	first []byte // what a client sends, or in an early state goes on with
	n     int
	g     *target // nil: nobody answers
	flows []cutFlow
}

// cutState is a state that flows are brought into.
type cutState struct {
	name  string
	share int    // of a hundred
	most  int    // flows; 0: no bound. Those that cost memory or time have one
	pin   bool   // to a name of its own, which is what first is then
	peer  string // the client's address, "" for any
	first []byte // what the client sends
	early bool   // nothing is dialled; or, where deaf, nobody answers
	deaf  bool
	echo  bool // the target sends back what it gets
	bring func(t *testing.T, all *sync.WaitGroup, f cutFlow)
	// told: the error of the client's or the far socket goes to somebody else, or is another one after the end
	// of file. There its state says enough: the test has closed nothing, so that only a reset closes it.
	told   [2]bool
	resume func(c *crowd, f cutFlow) error // carries bytes both ways, or as many as are open
}

// flood writes until the connection fails, and says when the other side takes no more for now.
func flood(all *sync.WaitGroup, from, to *net.TCPConn) (full chan struct{}) {
	to.SetReadBuffer(4 << 10)
	full = make(chan struct{})
	all.Go(func() {
		b, once := make([]byte, 16<<10), sync.Once{}
		from.SetWriteBuffer(8 << 10)
		from.SetDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			_, err := from.Write(b)
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				once.Do(func() { close(full) })
				from.SetDeadline(time.Time{})
			}
		}
	})
	return full
}

// carries sends a byte from one to the other.
func carries(from, to *net.TCPConn) error {
	from.SetDeadline(time.Now().Add(patience))
	to.SetDeadline(time.Now().Add(patience))
	if _, err := from.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(to, make([]byte, 1))
	return err
}

// exchange sends a byte each way.
func exchange(_ *crowd, f cutFlow) error {
	return errors.Join(carries(f.client, f.far), carries(f.far, f.client))
}

// goOn sends what an early flow waits for, and then a byte each way.
func goOn(c *crowd, f cutFlow) error {
	if _, err := f.client.Write(c.first); err != nil {
		return err
	}
	f.far, _ = c.g.next()
	return carries(f.far, f.client)
}

// drains reads what fills several windows of the reader.
func drains(c *net.TCPConn) error {
	c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.CopyN(io.Discard, c, 32<<10)
	return err
}

// looked is a connection of the test as one that acknowledged can look at.
type looked struct{ *net.TCPConn }

func (c looked) Control(f func(fd uintptr)) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(f)
	}
}

// moves waits until bytes move without the test's doing.
func moves(_ *crowd, f cutFlow) error {
	defer f.client.Close()
	before := acknowledged(looked{f.client})
	for late := time.Now().Add(patience); acknowledged(looked{f.client}) == before; time.Sleep(time.Millisecond) {
		if tcpState(f.client) != unix.BPF_TCP_ESTABLISHED || time.Now().After(late) {
			return errors.New("nothing moves")
		}
	}
	return nil
}

// cutStates are the states of X32, X33 and X34.
func cutStates() []*cutState {
	one, header := []byte{'!'}, []byte("PROXY TCP4 127.0.0.9 127.0.0.1 1 7001\r\nx")
	return []*cutState{
		{name: "hello", share: 5, pin: true, early: true, resume: goOn},
		{name: "program", share: 5, first: one, early: true, echo: true, resume: func(_ *crowd, f cutFlow) error { return carries(f.client, f.client) }},
		{name: "dialling", share: 1, most: 50, early: true, deaf: true, resume: func(_ *crowd, f cutFlow) error {
			if tcpState(f.client) != unix.BPF_TCP_ESTABLISHED {
				return errors.New("it was ended")
			}
			return nil
		}},
		{name: "coming", share: 5, pin: true, resume: func(_ *crowd, f cutFlow) error { return carries(f.far, f.client) }},
		{name: "half-client", share: 10, first: one, told: [2]bool{false, true},
			bring:  func(t *testing.T, _ *sync.WaitGroup, f cutFlow) { halfClose(t, f.client, f.far) },
			resume: func(_ *crowd, f cutFlow) error { return carries(f.far, f.client) }},
		{name: "half-target", share: 10, first: one, told: [2]bool{true, false},
			bring:  func(t *testing.T, _ *sync.WaitGroup, f cutFlow) { halfClose(t, f.far, f.client) },
			resume: func(_ *crowd, f cutFlow) error { return carries(f.client, f.far) }},
		{name: "full-client", share: 1, most: 50, first: one, told: [2]bool{false, true},
			bring:  func(_ *testing.T, all *sync.WaitGroup, f cutFlow) { <-flood(all, f.far, f.client) },
			resume: func(_ *crowd, f cutFlow) error { return drains(f.client) }},
		{name: "full-target", share: 1, most: 50, first: one, told: [2]bool{true, false},
			bring:  func(_ *testing.T, all *sync.WaitGroup, f cutFlow) { <-flood(all, f.client, f.far) },
			resume: func(_ *crowd, f cutFlow) error { return drains(f.far) }},
		{name: "idle", share: 56, first: one, resume: exchange},
		{name: "header", share: 5, peer: "127.3.0.1", first: header, early: true, resume: goOn},
		// The last, since they leave nobody else much of the machine.
		{name: "speed", share: 1, most: 5, first: one, told: [2]bool{true, true}, resume: moves,
			bring: func(_ *testing.T, all *sync.WaitGroup, f cutFlow) {
				all.Go(func() { io.Copy(f.far, f.far) })
				all.Go(func() { io.Copy(io.Discard, f.client) })
				all.Go(func() {
					for b := make([]byte, 64<<10); ; {
						if _, err := f.client.Write(b); err != nil {
							return
						}
					}
				})
			}},
	}
}

// halfClose ends one direction of a flow.
func halfClose(t *testing.T, from, to *net.TCPConn) {
	from.CloseWrite()
	if _, err := io.ReadAll(to); err != nil {
		t.Error(err)
	}
}

// open connects the flows of a crowd and brings them into their state.
func (c *crowd) open(t *testing.T, all *sync.WaitGroup) {
	d := net.Dialer{Timeout: patience}
	if c.state.peer != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.state.peer)}
	}
	for range c.n {
		one, err := d.Dial("tcp", c.addr+":7001")
		if err != nil {
			t.Fatalf("%s: %v", c.id, err)
		}
		f := cutFlow{client: one.(*net.TCPConn)}
		all.Go(func() { <-t.Context().Done(); f.client.Close() })
		if !c.state.early {
			f.client.Write(c.first)
			f.far, _ = c.g.next()
			f.far.SetDeadline(time.Time{})
			if _, err := io.ReadFull(f.far, make([]byte, len(c.first)-1)); err != nil {
				t.Fatalf("%s: %v", c.id, err)
			}
		}
		c.flows = append(c.flows, f)
	}
	if c.state.bring == nil {
		return
	}
	var brought sync.WaitGroup
	for _, f := range c.flows {
		brought.Go(func() { c.state.bring(t, all, f) })
	}
	brought.Wait()
}

// waitClosed waits until every socket of the flows is closed, and returns when each side's last one was.
func waitClosed(t *testing.T, crowds []*crowd) (clients, fars time.Time) {
	var left [2][]*net.TCPConn
	for _, c := range crowds {
		for _, f := range c.flows {
			left[0] = append(left[0], f.client)
			if f.far != nil {
				left[1] = append(left[1], f.far)
			}
		}
	}
	var done [2]time.Time
	for late := time.Now().Add(patience); len(left[0])+len(left[1]) > 0; time.Sleep(time.Millisecond) {
		for side := range left {
			if len(left[side]) == 0 {
				continue
			}
			left[side] = slices.DeleteFunc(left[side], func(c *net.TCPConn) bool { return tcpState(c) == unix.BPF_TCP_CLOSE })
			if len(left[side]) == 0 {
				done[side] = time.Now()
			}
		}
		if time.Now().After(late) {
			t.Fatalf("%d clients and %d targets were never told", len(left[0]), len(left[1]))
		}
	}
	return done[0], done[1]
}

// X32, X33, X34: 10,000 flows in eleven states, half of them of connections that are rejected in one change:
// these are reset at both ends within two seconds, and of the others none is touched.
func TestCutInEveryState(t *testing.T) {
	total := 10_000
	if raceDetector {
		total = 1_000
	}
	if room := roomFor(t, 4*total+2_000); room < 4*total+2_000 {
		total = (room - 2_000) / 4
		t.Logf("%d descriptors: %d flows only", room, total)
	}
	states := cutStates()
	program := &hangs{release: make(chan struct{})}
	var crowds, cut, kept []*crowd
	var changes []link.Change
	for i, s := range states {
		for half, list := range map[string]*[]*crowd{"cut": &cut, "kept": &kept} {
			c := &crowd{state: s, id: link.ID(s.name + "-" + half), first: s.first, n: max(1, total*s.share/200), addr: nextAddr(t)}
			if s.pin {
				c.first = helloFor(t, string(c.id)+".example")
			}
			if s.most > 0 {
				c.n = min(c.n, s.most)
			}
			var at netip.AddrPort
			switch {
			case s.deaf:
				at = deafTarget(t)
			case s.echo:
				at = echo(t)
			default:
				c.g = newTarget(t)
				at = c.g.addr()
			}
			edit := func(v *link.Service) {
				v.Alias = fmt.Sprintf("%s.%032x.postern", c.id, i)
				if s.pin {
					v.Pin, v.Names = link.PinTLS, []link.ResourceName{{Public: link.Name(c.id + ".example")}}
				}
			}
			changes = append(changes, service(c.id, 7001, at, edit), endpoint(c.id, c.id, c.addr))
			*list = append(*list, c)
			crowds = append(crowds, c)
		}
	}
	w := newWorld(t, Settings{
		MaxFlows: 2 * total, MaxPerSource: 2 * total, HelloTimeout: time.Minute, DialTimeout: time.Minute, ProbeInterval: time.Minute,
		InboundHeaders: []netip.Prefix{netip.MustParsePrefix("127.3.0.0/16")},
	}, changes...)
	w.rules.Store(&policy.Policy{Sets: []policy.Set{{Name: "slow", Program: program}}})
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	flows, touched := 0, 0
	for _, c := range crowds {
		c.open(t, &all)
		flows += c.n
	}
	eventually(t, "every flow is in its state", func() bool { return w.inState(program, crowds) && w.proxy.Flows() == flows })

	var reject []link.Change
	for _, c := range cut {
		reject = append(reject, link.Decide{Endpoint: c.id, LinkID: w.connection(c.id).LinkID, State: link.Rejected})
		touched += c.n
	}
	w.swap(reject...)
	began := time.Now()
	w.proxy.Update(w.now.Load())
	walked := time.Now()
	clients, fars := waitClosed(t, cut)
	t.Logf("%d of %d flows were cut: the walk took %v, the last client was told after %v, the last target after %v",
		touched, flows, walked.Sub(began).Round(time.Millisecond), clients.Sub(began).Round(time.Millisecond), fars.Sub(began).Round(time.Millisecond))
	if last := max(clients.Sub(began), fars.Sub(began)); last > cutBound && !raceDetector {
		t.Errorf("it took %v", last)
	}
	for _, c := range cut {
		for i, f := range c.flows {
			if !c.state.told[0] && !isReset(f.client) || f.far != nil && !c.state.told[1] && !isReset(f.far) {
				t.Errorf("%s: flow %d ended otherwise than with a reset", c.id, i)
			}
		}
	}
	eventually(t, "they have left", func() bool { return w.proxy.Flows() == flows-touched })
	close(program.release)
	slices.Reverse(kept) // the last came last to their deadlines
	for _, c := range kept {
		for i, f := range c.flows {
			if err := c.state.resume(c, f); err != nil {
				t.Errorf("%s: flow %d was touched: %v", c.id, i, err)
				break
			}
		}
	}
	if n := w.metric(t, "postern_proxy_refused_total", "revoked") + w.metric(t, "postern_proxy_flows_total", "revoked"); n != float64(touched) {
		t.Errorf("%v flows are counted as revoked, %d were", n, touched)
	}
	w.proxy.Close()
}

// inState reports whether the flows that nothing is dialled for are where they are to be.
func (w *world) inState(program *hangs, crowds []*crowd) bool {
	want := map[string]int{}
	for _, c := range crowds {
		want[c.state.name] += c.n
	}
	dialling := 0
	for _, f := range w.proxy.live.all() {
		f.mu.Lock()
		if f.address.IsValid() && f.target == nil {
			dialling++
		}
		f.mu.Unlock()
	}
	return int(program.waiting.Load()) == want["program"] && dialling == want["dialling"] && w.unjudged() == want["hello"]
}
