package datagram

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// Flow is what one client sends to one local address and port, and what comes back.
type Flow struct {
	relay   *Relay
	key     key
	owner   any
	account Account
	via     atomic.Pointer[Listener] // that answers go out of: the one that the client was last heard on
	to      mmsg.Name                // the client
	toSize  uint32
	loop    *loop
	number  uint64 // in loop; 0: not entered

	// up is held while something goes to the target, down while something goes to the client, both to begin and to
	// end: when End has returned nothing more passes. The handler isn't called under either.
	up, down sync.Mutex
	fd       int // towards the target; -1: not connected, or ended
	target   endpoint
	four     bool // the target is of IPv4
	ended    bool
	started  bool
	hushed   bool   // by Hush
	resumed  bool   // another process has begun it; no datagram finds it before Start
	head     []byte // in front of each datagram to the target
	never    func(b []byte) bool
	held     []message
	heldSize int
	plain    [2]bool // no trains to the target, to the client
}

// Client returns who sends, unmapped.
func (f *Flow) Client() netip.AddrPort { return f.key.client.addrPort() }

// Local returns where to, unmapped.
func (f *Flow) Local() netip.AddrPort { return f.key.local.addrPort() }

// Owner returns what Own has set.
func (f *Flow) Owner() any { return f.owner }

// Own says what the flow belongs to and where it counts. It is called in [Handler.Begin], before anything else.
func (f *Flow) Own(owner any, a Account) { f.owner, f.account = owner, a }

// Connect opens the socket towards the target, from an address, or from the kernel's choice where from isn't valid.
// guard sees the socket before anything else is done with it. It may be called again after an error, which wraps
// that of guard or of the system.
func (f *Flow) Connect(from, target netip.AddrPort, guard func(fd uintptr, to netip.AddrPort) error) error {
	target = netip.AddrPortFrom(target.Addr().Unmap(), target.Port())
	fd, err := f.relay.connect(from, target, guard)
	if err != nil {
		return fmt.Errorf("connect to %v: %w", target, err)
	}
	f.up.Lock()
	f.down.Lock()
	defer f.down.Unlock()
	defer f.up.Unlock()
	if f.ended || f.fd >= 0 {
		unix.Close(fd)
		return errEnded
	}
	f.fd, f.target, f.four = fd, endpoint{ip: target.Addr().As16(), port: target.Port()}, target.Addr().Is4()
	return nil
}

func (r *Relay) connect(from, target netip.AddrPort, guard func(fd uintptr, to netip.AddrPort) error) (fd int, err error) {
	domain := unix.AF_INET
	if target.Addr().Is6() {
		domain = unix.AF_INET6
	}
	if fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = guard(uintptr(fd), target); err != nil {
		return fd, err
	}
	if from.IsValid() {
		if err = unix.Bind(fd, sockaddr(from)); err != nil {
			return fd, os.NewSyscallError("bind", err)
		}
	}
	if err = unix.Connect(fd, sockaddr(target)); err != nil {
		return fd, os.NewSyscallError("connect", err)
	}
	if !r.plain { // from an older kernel datagrams come one by one
		_ = mmsg.PutTogether(fd)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Start lets datagrams pass, those first that are held. Each to the target has head in front, none for no head; the
// flow keeps it. What never says yes to isn't sent to the target; nil: everything is. The error is of a flow that isn't
// connected, or was ended, or of one from another process where the client has begun another since. After [Flow.Hush] it does nothing.
func (f *Flow) Start(head []byte, never func(b []byte) bool) error {
	f.up.Lock()
	f.down.Lock()
	if f.ended || f.fd < 0 {
		f.down.Unlock()
		f.up.Unlock()
		return errEnded
	}
	if f.hushed { // what is held is for Withdraw
		f.down.Unlock()
		f.up.Unlock()
		return nil
	}
	err := f.enter()
	f.down.Unlock()
	if err != nil {
		f.up.Unlock()
		return err
	}
	f.started, f.head, f.never = true, head, never
	held := f.held
	f.held = nil
	f.release()
	s := senders.Get().(*sender)
	f.forward(s, held)
	err = s.err
	senders.Put(s)
	f.up.Unlock()
	if err != nil {
		f.relay.handler.Unreachable(f, err)
	}
	return nil
}

// enter has the target watched. The caller holds up and down.
func (f *Flow) enter() error {
	if f.resumed && f.relay.table.add(f) != nil {
		return errReplaced
	}
	if err := f.loop.enter(f); err != nil {
		return fmt.Errorf("watch the target: %w", err)
	}
	return nil
}

// End lets nothing pass any more, and forgets the flow: what the same client sends next begins another. It may be
// called by anybody at any time; again, it does nothing.
func (f *Flow) End() {
	f.up.Lock()
	f.down.Lock()
	fd := f.fd
	f.fd, f.ended, f.held = -1, true, nil
	f.release()
	if f.number != 0 {
		f.loop.leave(f)
		f.number = 0
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	f.down.Unlock()
	f.up.Unlock()
	f.relay.table.remove(f)
}

// take sends messages of the client to the target, or holds them. They are the batch's.
func (f *Flow) take(s *sender, all []message) {
	f.up.Lock()
	if !f.started && !f.ended {
		for i := range all {
			f.hold(&all[i])
		}
		f.up.Unlock()
		return
	}
	s.err = nil
	if !f.ended && !f.hushed {
		f.forward(s, all)
	}
	f.up.Unlock()
	if s.err != nil {
		f.relay.handler.Unreachable(f, s.err)
	}
}

// forward sends to the target. The caller holds up.
func (f *Flow) forward(s *sender, all []message) {
	s.begin(f.fd, nil, 0, netip.Addr{}, f.head, f.plain[0] || f.relay.plain)
	for i := range all {
		if f.never != nil && f.forbids(&all[i]) {
			s.dropped[Forbidden] += all[i].count()
			continue
		}
		s.add(&all[i])
	}
	s.flush()
	f.plain[0] = s.plain
	f.relay.Counts.ToTarget.Add(int64(s.datagrams))
	f.moved(s, f.account.ToTarget)
}

// forbids reports whether a message has a datagram that may not go to the target: then none of its train does.
func (f *Flow) forbids(m *message) bool {
	if m.segment == 0 {
		return f.never(m.data)
	}
	for data := m.data; len(data) > 0; data = data[min(m.segment, len(data)):] {
		if f.never(data[:min(m.segment, len(data))]) {
			return true
		}
	}
	return false
}

// hold keeps a message until the flow is decided. The caller holds up.
func (f *Flow) hold(m *message) {
	n, waiting := len(m.data), len(f.held)
	if waiting > 0 && (waiting == maxHeld || f.heldSize+n > maxHeldBytes) {
		f.relay.Counts.drop(Waiting, m.count())
		return
	}
	if f.relay.held.Add(int64(n)) > maxHeldBytesAll {
		f.relay.held.Add(-int64(n))
		f.relay.Counts.drop(Waiting, m.count())
		return
	}
	kept := *m
	kept.data = slices.Clone(m.data)
	f.held = append(f.held, kept)
	f.heldSize += n
}

// release gives back the room of what was held. The caller holds up.
func (f *Flow) release() {
	f.relay.held.Add(-int64(f.heldSize))
	f.heldSize = 0
}

// answer takes what has come from the target, one batch of it, and sends it to the client.
func (f *Flow) answer(b *batch) {
	f.down.Lock()
	if f.fd < 0 || f.hushed {
		f.down.Unlock()
		return
	}
	errno := b.receive(f.fd, true)
	if errno == 0 {
		f.back(b)
	}
	f.down.Unlock()
	switch errno {
	case 0, unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS:
	default:
		f.relay.handler.Unreachable(f, errno)
	}
}

// back sends a batch of the target to the client. The caller holds down. Each is asked who sent it: a socket has its
// port before it is connected, and what anybody sends there in between stays in its queue.
func (f *Flow) back(b *batch) {
	s, l := &b.out, f.via.Load()
	s.begin(-1, &f.to, f.toSize, f.key.local.addrPort().Addr(), nil, f.plain[1] || f.relay.plain)
	for i := range b.in[:b.n] { // a piece each, which is never too many
		m, ok := b.message(i, true, f.four)
		if !ok || m.from != f.target {
			s.dropped[Malformed]++
			continue
		}
		b.run[i] = m
		s.add(&b.run[i])
	}
	if err := l.raw.Control(s.flushes); err != nil { // the listener is gone, and no other has heard of the client yet
		s.dropped[Full] += b.n
	}
	f.plain[1] = s.plain
	f.relay.Counts.ToClient.Add(int64(s.datagrams))
	f.moved(s, f.account.ToClient)
}

// moved counts what was sent and dropped.
func (f *Flow) moved(s *sender, bytes *atomic.Int64) {
	for d, n := range s.dropped {
		f.relay.Counts.drop(Drop(d), n)
	}
	if s.datagrams == 0 {
		return
	}
	bytes.Add(int64(s.bytes))
	if !f.account.Moved.Load() {
		f.account.Moved.Store(true)
	}
}
