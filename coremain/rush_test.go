package coremain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rush offers new connections at a steady rate, whatever becomes of those before, as many as the machine gives. Each has bytes of its
// own carried there and back, and ends in order.
type rush struct {
	at      string
	began   time.Time
	stop    chan struct{}
	all     sync.WaitGroup
	done    atomic.Int64 // connections that were right
	longest atomic.Int64 // that one of them took, in nanoseconds

	mu     sync.Mutex
	failed map[string]int // by kind
	first  []error
}

const (
	rushRate  = 1000             // connections in a second
	rushOpen  = 1000             // at once: more aren't offered
	rushTime  = 40 * time.Second // that one may take; on a quiet machine it is milliseconds, or as long as no process serves
	rushBytes = 4 << 10          // at most, each way
)

func startRush(t *testing.T, at string) *rush {
	r := &rush{at: at, began: time.Now(), stop: make(chan struct{}), failed: map[string]int{}}
	r.all.Go(r.run)
	t.Cleanup(r.end)
	return r
}

func (r *rush) run() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	open := make(chan struct{}, rushOpen)
	for n := 0; ; {
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		for due := int(time.Since(r.began) * rushRate / time.Second); n < due; n++ {
			select {
			case open <- struct{}{}:
			default:
				continue // it isn't made up for later
			}
			i := n
			r.all.Go(func() {
				r.note(r.one(i))
				<-open
			})
		}
	}
}

// one makes connection i, from an address that only few others have.
func (r *rush) one(i int) error {
	began := time.Now()
	d := net.Dialer{Deadline: began.Add(rushTime), LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
	conn, err := d.Dial("tcp", r.at)
	if err != nil {
		return err
	}
	defer conn.Close()
	c, random := conn.(*net.TCPConn), rand.New(rand.NewPCG(uint64(i), 36))
	sent := make([]byte, 1+random.IntN(rushBytes))
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	if err := errors.Join(c.SetDeadline(began.Add(rushTime)), write(c, sent), c.CloseWrite()); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	switch {
	case err != nil:
		return fmt.Errorf("%d bytes of %d: %w", len(got), len(sent), err)
	case !bytes.Equal(got, sent):
		return fmt.Errorf("%d bytes of %d, or others", len(got), len(sent))
	}
	for took := int64(time.Since(began)); ; {
		if most := r.longest.Load(); took <= most || r.longest.CompareAndSwap(most, took) {
			return nil
		}
	}
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

func (r *rush) note(err error) {
	if err == nil {
		r.done.Add(1)
		return
	}
	kind := "other"
	for is, name := range map[error]string{syscall.ECONNREFUSED: "refused", syscall.ECONNRESET: "reset", syscall.EPIPE: "reset", os.ErrDeadlineExceeded: "late"} {
		if errors.Is(err, is) {
			kind = name
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed[kind]++; len(r.first) < 5 {
		r.first = append(r.first, fmt.Errorf("after %v: %w", time.Since(r.began).Round(time.Millisecond), err))
	}
}

// more waits until so many more connections were right.
func (r *rush) more(u *upgraded, n int64) {
	u.t.Helper()
	want := r.done.Load() + n
	u.eventually("connections", func() bool { return r.done.Load() >= want || r.failures() > 0 })
}

func (r *rush) failures() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range r.failed {
		n += of
	}
	return n
}

func (r *rush) end() {
	select {
	case <-r.stop:
		return
	default:
	}
	close(r.stop)
	r.all.Wait()
}

// check ends the rush, tells of it, and fails the test where one connection wasn't right.
func (r *rush) check(t *testing.T, output func() string) {
	t.Helper()
	offered := time.Since(r.began)
	r.end()
	t.Logf("%d connections, %.0f a second; the longest took %v", r.done.Load(), float64(r.done.Load())/offered.Seconds(),
		time.Duration(r.longest.Load()).Round(time.Millisecond))
	if r.failures() > 0 {
		t.Fatalf("%v failed: %v, the first:\n%v\n%s", r.failures(), r.failed, errors.Join(r.first...), output())
	}
}

// rushCorefile is that of upgrades, with room for what waits, and time for what was accepted.
func rushCorefile(dns, target string) string {
	return strings.Replace(upgradeCorefile(dns, target, "", false), " linkproxy\n",
		fmt.Sprintf(" linkproxy {\n  drain 20s\n  max_flows %d\n  max_per_source %d\n }\n", 2*rushOpen, 2*rushOpen), 1)
}

// TestUpgradeInARush (P13): a process follows on another while a thousand connections come in a second. None is refused, reset or cut
// short.
func TestUpgradeInARush(t *testing.T) {
	u := startUpgraded(t, rushCorefile)
	r := startRush(t, u.at)
	r.more(u, 300)
	for range 2 {
		u.upgrade()
		r.more(u, 300)
	}
	r.check(t, u.output)
}

// TestRestartInARush (P13): the same for a restart by a service manager that keeps what is listened on. What comes while no process
// is there waits.
func TestRestartInARush(t *testing.T) {
	manager, u := startManaged(t, rushCorefile)
	r := startRush(t, u.at)
	r.more(u, 300)
	u.server = manager.restart(u.server, func() {})
	u.eventually("manager that keeps nothing", func() bool { return len(manager.keeps()) == 0 })
	r.more(u, 300)
	r.check(t, u.output)
}
