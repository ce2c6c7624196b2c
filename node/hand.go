package node

import (
	"cmp"
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/proxy"
	"github.com/postern-link/postern/proxy/datagram"
)

// Flows of UDP don't stay behind: the old process hands each over with its socket, and the new one goes on with it.

// settleTime bounds how long a process that takes over hears nothing of flows, and yet waits for the one before it to receive no
// datagrams any more. One that is stopped (SIGSTOP) must not keep those of all clients waiting.
const settleTime = 5 * time.Second

// sendTime bounds how long a process that has been followed by another waits for it to read a message. What doesn't read can't say which flows
// may go on either.
const sendTime = 10 * time.Second

// What a message has of flows at most, so that it is never too long: an ID of Azure has several hundred bytes.
const (
	handAtOnce   = 48
	mostObserved = 256 // bytes of the names of rules
)

// hand is the goroutine that gives the flows of UDP to the process that has taken this one's place.
func (h *heir) hand() {
	defer close(h.settled)
	handed, ended, err := h.proxy.HandOver(handAtOnce, h.send)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.broken(err) // it hangs: no second wait
	}
	// Whatever has become of them, nothing is read here any more, and the other process waits for no more than that. As long as it can be told
	// that, it can say which flows of TCP may go on.
	told := again(func() error { return h.conn.Send(succession.Message{Kind: succession.Settled}) })
	if told != nil {
		h.broken(told)
	}
	if err = cmp.Or(err, told); err != nil {
		h.node.log.Error("flows of UDP can't be handed over, and end", "error", err)
	}
	if handed+ended > 0 {
		h.node.log.Info("flows of UDP go on in the process that has taken this one's place", "flows", handed, "ended", ended)
	}
}

// How often and how long a message waits for the kernel to have room for it.
const (
	roomPause = 5 * time.Millisecond
	roomTries = 400
)

// again sends until the kernel has room, for memory or for more descriptors under way (ETOOMANYREFS: RLIMIT_NOFILE of the user, unix(7)), which
// says nothing of the other process. The error is that of the last try.
func again(send func() error) (err error) {
	for range roomTries {
		err = send()
		if !errors.Is(err, syscall.ETOOMANYREFS) && !errors.Is(err, syscall.ENOBUFS) && !errors.Is(err, syscall.ENOMEM) {
			break
		}
		time.Sleep(roomPause)
	}
	return err
}

// send sends flows, those that are decided with their sockets.
func (h *heir) send(flows []proxy.Handed, waiting []proxy.Waiting) error {
	if err := h.sendWaiting(waiting); err != nil || len(flows) == 0 {
		return err
	}
	return h.sendHanded(flows)
}

// sendWaiting sends flows that aren't decided, as many in a message as it has room for.
func (h *heir) sendWaiting(waiting []proxy.Waiting) error {
	m, size := succession.Message{Kind: succession.Anew}, 0
	for i, w := range waiting {
		one, n := succession.Waiting{Source: w.Client, Local: w.Local}, 0
		for _, d := range w.Held {
			one.Held = append(one.Held, succession.Held{Data: d.Data, Segment: d.Segment})
			n += len(d.Data)
		}
		if len(m.Anew) == succession.MaxAnew || len(m.Anew) > 0 && size+n > succession.MaxHeld {
			if err := again(func() error { return h.conn.Send(m) }); err != nil {
				return err
			}
			m.Anew, size = nil, 0
		}
		m.Anew, size = append(m.Anew, one), size+n
		if i == len(waiting)-1 {
			return again(func() error { return h.conn.Send(m) })
		}
	}
	return nil
}

func (h *heir) sendHanded(flows []proxy.Handed) error {
	m, fds := succession.Message{Kind: succession.Hand}, make([]int, 0, len(flows))
	for _, f := range flows {
		m.Handed = append(m.Handed, succession.Handed{Flow: told(f.FlowInfo), Age: f.Age, Quiet: f.Quiet, Observed: some(f.Observed)})
		fds = append(fds, f.Socket)
	}
	return again(func() error { return h.conn.Send(m, fds...) })
}

// some returns as many of the names as a message has room for.
func some(names []string) []string {
	size := 0
	for i, name := range names {
		if size += len(name); size > mostObserved {
			return names[:i]
		}
	}
	return names
}

// settle is the goroutine that has datagrams received when the process before this one doesn't read them any more, or nothing
// is heard of it, and then the programs asked about its flows. first: it is the one whose listening sockets this one has.
func (n *Node) settle(e *elder, first bool) {
	if first {
		if !n.unread(e) {
			return
		}
		e.proxy.Receive()
	}
	close(e.received)
	select {
	case <-e.settled:
	case <-e.ended:
	case <-n.life.Done():
		return
	}
	e.proxy.AskTaken(n.life)
}

// unread waits until the process before this one reads no datagrams any more, or nothing was heard of its flows for settleTime.
// It reports false where this process ends.
func (n *Node) unread(e *elder) bool {
	late := time.NewTimer(settleTime)
	defer late.Stop()
	for {
		select {
		case <-e.settled:
		case <-e.ended:
		case <-late.C:
			if left := settleTime - time.Since(*e.heard.Load()); left > 0 {
				late.Reset(left)
				continue
			}
			n.log.Warn("the process before this one may receive datagrams yet; this one begins to", "waited", settleTime)
		case <-n.life.Done():
			return false
		}
		return true
	}
}

// hears notes that the other process is there, and hands flows over.
func (e *elder) hears() {
	now := time.Now()
	e.heard.Store(&now)
}

// begin begins flows anew that weren't decided in the process before this one.
func (e *elder) begin(all []succession.Waiting) {
	for _, w := range all {
		one := proxy.Waiting{Client: w.Source, Local: w.Local}
		for _, d := range w.Held {
			one.Held = append(one.Held, datagram.Held{Data: d.Data, Segment: d.Segment})
		}
		if e.proxy.TakeWaiting(one) {
			e.taken++
		}
	}
	e.handed += len(all)
}

// hush has nothing pass any more of the flows that the process before this one hasn't handed over yet, once: something has changed, which that
// process doesn't know.
func (e *elder) hush() {
	select {
	case <-e.settled:
		return
	default:
	}
	e.mu.Lock()
	e.hushed = true
	e.mu.Unlock()
	e.wake()
}

// watchTime hushes a process before this one where time may revoke what that one hasn't handed over yet: by a rule, or because the view is too old. That
// one asks about neither any more. A hand-over that is over by the next look needs none of it, since each flow is judged when it comes.
func (n *Node) watchTime(e *elder) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for n.Freshness().Worst() < policy.Expired {
		select {
		case <-e.settled:
			return
		case <-e.life.Done():
			return
		case <-ticker.C:
		}
		if n.Policy().Timed() {
			break
		}
	}
	e.hush()
}

// judgesAlone reports whether a change of the state may revoke what a process before this one doesn't: that one follows a state that is
// shared, but asks no rules any more.
func (n *Node) judgesAlone() bool { return n.lent != nil || n.Policy() != nil }

// hushElders is hush for all.
func (n *Node) hushElders() {
	for _, e := range n.eldersNow() {
		e.hush()
	}
}

// Settle returns when no process before this one has flows of UDP for it any more, has ended, or was silent for long: then another one may take
// this one's place, and has to wait for this one alone. The error is that of ctx.
func (n *Node) Settle(ctx context.Context) error {
	for _, e := range n.eldersNow() {
		select {
		case <-e.received:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.life.Done():
			return context.Canceled
		}
	}
	return nil
}

// takeOver goes on with flows of the process before this one. Those whose sockets are missing end.
func (e *elder) takeOver(all []succession.Handed, fds []int) {
	for i, f := range all {
		h := proxy.Handed{FlowInfo: guest(f.Flow), Age: max(0, f.Age), Quiet: max(0, f.Quiet), Observed: f.Observed, Socket: -1}
		if i < len(fds) {
			h.Socket = fds[i]
		}
		if e.proxy.TakeOver(h) {
			e.taken++
		}
	}
	succession.CloseAll(fds[min(len(all), len(fds)):])
	e.handed += len(all)
}

// tellTaken notes that the process before this one receives no more.
func (n *Node) tellTaken(e *elder) {
	select {
	case <-e.settled:
		return
	default:
	}
	close(e.settled)
	if e.handed > 0 {
		n.log.Info("flows of UDP of the process before this one go on here", "flows", e.taken, "ended", e.handed-e.taken)
	}
}

// Receive begins to take datagrams from sockets that a process before this one had, and that has ended.
func (n *Node) Receive() {
	if p := n.proxy.Load(); p != nil {
		p.Receive()
	}
}
