package engine

import (
	"container/heap"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var pathBytes = flag.Int64("path", 4<<20, "bytes that TestBadPath sends each way")

// path is what lies between two network namespaces: it carries packets from a TUN device in one to one in the other, late, and
// not all of them, and not in order. There are delays of every length in it without a queueing discipline of the kernel.
type path struct {
	near, far *os.File
	delay     time.Duration // of each packet, one way
	loss      float64       // of 1
	reorder   float64       // packets that are later than others by up to a fifth of delay
	cut       atomic.Bool   // nothing passes any more

	passed, lost, late atomic.Int64 // packets
	running            sync.WaitGroup
}

// The addresses of both ends, and one that nobody answers for.
var (
	nearAddr = netip.MustParseAddr("10.99.0.1")
	farAddr  = netip.MustParseAddr("10.99.0.2")
	nobody   = netip.MustParseAddrPort("10.99.0.3:7")
)

// inNamespace runs the test again in a process that has a network of its own, and reports whether this is that.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("POSTERN_TEST_PATH") == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root, for namespaces")
		}
		t.Parallel() // it waits for that process
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-path="+flag.Lookup("path").Value.String())
		cmd.Env = append(os.Environ(), "POSTERN_TEST_PATH=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		} else if testing.Verbose() {
			t.Logf("%s", out)
		}
		return false
	}
	return true
}

// newPath joins the network of this process and another, in which far runs.
func newPath(t *testing.T, p *path, far func() error) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	must(up("lo", netip.Addr{}))
	p.near, err = tun("near", nearAddr)
	must(err)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.far, err = tun("far", farAddr)
		}
		if err == nil {
			err = far()
		}
		done <- err
	}()
	must(<-done)
	p.running.Go(func() { p.carry(p.near, p.far) })
	p.running.Go(func() { p.carry(p.far, p.near) })
	t.Cleanup(func() {
		p.near.Close()
		p.far.Close()
		p.running.Wait()
	})
}

// tun makes a TUN device in the namespace of the thread.
func tun(name string, at netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err == nil {
		err = up(name, at)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// packetSize is the largest: the fewer there are, the sooner a lossy path has carried something.
const packetSize = 65535

// up gives a device an address, if there is one, and starts it.
func up(name string, at netip.Addr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	set := func(request uint, value func(r *unix.Ifreq)) {
		r, bad := unix.NewIfreq(name)
		if err = errors.Join(err, bad); err == nil {
			value(r)
			err = os.NewSyscallError(name, unix.IoctlIfreq(s, request, r))
		}
	}
	if at.IsValid() {
		set(unix.SIOCSIFADDR, func(r *unix.Ifreq) { r.SetInet4Addr(at.AsSlice()) })
		set(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { r.SetInet4Addr([]byte{255, 255, 255, 0}) })
		set(unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(packetSize) })
	}
	set(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) })
	return err
}

// packet is under way.
type packet struct {
	b   []byte
	due time.Time
}

type packets []packet

func (p packets) Len() int           { return len(p) }
func (p packets) Less(i, j int) bool { return p[i].due.Before(p[j].due) }
func (p packets) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)        { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// carry takes packets from one device and gives them to the other, until the first is closed.
func (p *path) carry(from, to *os.File) {
	arrived := make(chan packet, 1000)
	p.running.Go(func() {
		defer close(arrived)
		for b := make([]byte, packetSize); ; {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if p.cut.Load() || rand.Float64() < p.loss {
				p.lost.Add(1)
				continue
			}
			p.passed.Add(1)
			due := time.Now().Add(p.delay)
			if rand.Float64() < p.reorder {
				p.late.Add(1)
				due = due.Add(rand.N(p.delay/5 + 1))
			}
			arrived <- packet{append([]byte(nil), b[:n]...), due}
		}
	})
	var queue packets
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if len(queue) > 0 {
			timer.Reset(time.Until(queue[0].due))
		}
		select {
		case one, ok := <-arrived:
			if !ok {
				return
			}
			heap.Push(&queue, one)
		case <-timer.C:
			for len(queue) > 0 && !queue[0].due.After(time.Now()) {
				to.Write(heap.Pop(&queue).(packet).b) // what it doesn't take is lost too
			}
		}
	}
}

// across is a world whose targets are at the other end of a path.
func across(t *testing.T, p *path, test func(t *testing.T, w *world, l *net.TCPListener)) {
	var l *net.TCPListener
	newPath(t, p, func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(farAddr, 0)))
		return err
	})
	defer l.Close()
	each(t, func(t *testing.T, w *world) {
		p.cut.Store(false)
		test(t, w, l)
	})
}

// pairAcross is a pair whose target is at the other end.
func (w *world) pairAcross(l *net.TCPListener, control func(fd uintptr)) *running {
	w.t.Helper()
	p := &running{ended: make(chan End, 1)}
	p.client, p.near = w.accepted()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second) // packets are lost
	defer cancel()
	var err error
	if p.far, err = Dial(ctx, w.engine, netip.AddrPort{}, addr(l), p.near, func(fd uintptr, _ netip.AddrPort) error {
		if control != nil {
			control(fd)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if p.target, err = l.AcceptTCP(); err != nil {
		w.t.Fatal(err)
	}
	w.open = append(w.open, p.target)
	w.copy(p, nil)
	return p
}

// P07: 200 ms there and back, 5 % of the packets lost, a tenth out of order: what comes is what was sent, both ways at once.
func TestBadPath(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	path := &path{delay: 100 * time.Millisecond, loss: 0.05, reorder: 0.1}
	across(t, path, func(t *testing.T, w *world, l *net.TCPListener) {
		p := w.pairAcross(l, nil)
		seed, began := rand.Uint64(), time.Now()
		var all sync.WaitGroup
		for i, ends := range [][2]*net.TCPConn{{p.client, p.target}, {p.target, p.client}} {
			all.Go(func() {
				if err := pour(ends[0], seed+uint64(i), *pathBytes); err != nil {
					t.Error(err)
				}
				ends[0].CloseWrite()
			})
			all.Go(func() {
				if got, err := drink(ends[1], seed+uint64(i)); got != *pathBytes || err != nil {
					t.Errorf("seed %d: %d of %d bytes came, then %v", seed+uint64(i), got, *pathBytes, err)
				}
			})
		}
		all.Wait()
		if e := p.wait(t); e.Broken != Nobody {
			t.Errorf("ended %+v", e)
		}
		t.Logf("%d bytes each way in %v; of all packets %d passed, %d of them late, and %d were lost", *pathBytes,
			time.Since(began).Round(time.Millisecond), path.passed.Load(), path.late.Load(), path.lost.Load())
		if path.lost.Load() == 0 || path.late.Load() == 0 {
			t.Error("the path is a good one")
		}
	})
}

// P02: who drops the SYN costs who dials it the deadline, and nobody else anything.
func TestDroppedSYN(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	across(t, &path{}, func(t *testing.T, w *world, l *net.TCPListener) {
		const deadline = 500 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		began := time.Now()
		lost := make(chan error, 20)
		for range cap(lost) {
			go func() {
				c, err := Dial(ctx, w.engine, netip.AddrPort{}, nobody, nil, nil)
				if err == nil {
					c.Close()
				}
				lost <- err
			}()
		}
		for range 5 {
			p := w.pairAcross(l, nil)
			say(t, p.client, "hello")
			hear(t, p.target, "hello")
		}
		others := time.Since(began)
		for range cap(lost) {
			if err := <-lost; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("silence: %v", err)
			}
		}
		took := time.Since(began)
		t.Logf("others were dialled within %v, silence cost %v", others, took)
		if took < deadline || took > deadline+5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// P08: a peer that is gone without a word is noticed: by keepalive where nothing is under way, by the user timeout where bytes are.
// The flow ends as broken, whatever state it is in. The options have the proxy's order, and shorter times; that the proxy sets
// them is TestGonePeersAreNoticed there.
func TestGonePeer(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	impatient := func(fd uintptr) {
		for _, o := range [][3]int{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 2},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2000},
		} {
			unix.SetsockoptInt(int(fd), o[0], o[1], o[2])
		}
	}
	path := &path{}
	across(t, path, func(t *testing.T, w *world, l *net.TCPListener) {
		pairs := map[string]*running{}
		for _, state := range []string{"idle", "under way", "the client has ended", "the target has ended"} {
			p := w.pairAcross(l, impatient)
			say(t, p.client, "hello")
			hear(t, p.target, "hello")
			pairs[state] = p
		}
		pairs["the client has ended"].client.CloseWrite()
		hearEnd(t, pairs["the client has ended"].target)
		pairs["the target has ended"].target.CloseWrite()
		hearEnd(t, pairs["the target has ended"].client)
		path.cut.Store(true)
		say(t, pairs["under way"].client, "anybody?")
		began := time.Now()
		for state, p := range pairs {
			if e := p.wait(t); e.Broken != Target {
				t.Errorf("%s: ended %+v", state, e)
			}
			t.Logf("%s: %v", state, time.Since(began).Round(time.Millisecond))
			if state == "the target has ended" {
				hearBroken(t, p.client)
			} else {
				hearReset(t, p.client)
			}
		}
	})
}
