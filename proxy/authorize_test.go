package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// says is a program that answers all alike, and counts how many it is asked about at once.
type says struct {
	policy.Answer
	wait      chan struct{} // answers when it is closed; nil: at once
	asked     atomic.Int32
	now, most atomic.Int32
}

func (s *says) Authorize(ctx context.Context, q policy.Question) policy.Answer {
	s.asked.Add(1)
	for n := s.now.Add(1); ; {
		if most := s.most.Load(); n <= most || s.most.CompareAndSwap(most, n) {
			break
		}
	}
	defer s.now.Add(-1)
	if s.wait != nil {
		select {
		case <-s.wait:
		case <-ctx.Done():
		}
	}
	return s.Answer
}

func (*says) Review(context.Context, policy.Review) policy.Decision { return policy.Decision{} }
func (*says) Changed(*link.Snapshot)                                {}

func under(programs ...policy.Program) *policy.Policy {
	p := &policy.Policy{}
	for _, one := range programs {
		p.Sets = append(p.Sets, policy.Set{Name: "p", Program: one})
	}
	return p
}

var (
	yes     = policy.Answer{Allow: true}
	no      = policy.Answer{Reason: policy.PolicyDenied, Rule: "policy p: no"}
	nothing = policy.Answer{Reason: policy.PolicyError, Rule: "policy p: no answer"}
)

// TestReauthorize: what was let in is asked about again, and only a no cuts it.
func TestReauthorize(t *testing.T) {
	for _, tc := range []struct {
		name  string
		say   []policy.Answer
		stays bool
	}{
		{"allowed", []policy.Answer{yes}, true},
		{"G03 no answer", []policy.Answer{nothing}, true},
		{"denied", []policy.Answer{no}, false},
		{"denied by the second", []policy.Answer{yes, no}, false},
		{"G03 denied by the second, no answer of the first", []policy.Answer{nothing, no}, false},
		{"no program", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t)))
			before := &says{Answer: yes}
			w.rules.Store(under(before))
			c := dial(t, w.first())
			eventually(t, "the flow is carried", func() bool { return ping(c) == nil })
			if before.asked.Load() != 1 {
				t.Fatalf("asked %d times", before.asked.Load())
			}
			var all []policy.Program
			for _, a := range tc.say {
				all = append(all, &says{Answer: a})
			}
			w.rules.Store(under(all...))
			w.proxy.Review()
			w.proxy.Reauthorize(t.Context())
			if stays := ping(c) == nil; stays != tc.stays {
				t.Errorf("the flow stays: %v", stays)
			}
			if !tc.stays {
				eventually(t, "a line that says why", func() bool { return len(w.log.lines("reason=revoked", `rule="policy p: no"`)) == 1 })
			}
		})
	}
}

// TestReauthorizeBounds: many live flows are asked about a few at once, and not beyond a context.
func TestReauthorizeBounds(t *testing.T) {
	w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t)))
	const flows = 3 * maxAgain
	for range flows {
		if c := dial(t, w.first()); ping(c) != nil {
			t.Fatal("not carried")
		}
	}
	p := &says{Answer: yes, wait: make(chan struct{})}
	w.rules.Store(under(p))
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { w.proxy.Reauthorize(ctx) })
	eventually(t, "as many questions as there may be", func() bool { return p.now.Load() == maxAgain })
	cancel()
	asking.Wait()
	close(p.wait)
	w.proxy.Reauthorize(t.Context())
	if p.most.Load() > maxAgain || p.asked.Load() < flows {
		t.Errorf("%d flows were asked about, %d at once", p.asked.Load(), p.most.Load())
	}
}

// TestProgramRefuses: a flow that a program refuses is not carried, with the program's words in its line.
func TestProgramRefuses(t *testing.T) {
	w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t)))
	for _, a := range []policy.Answer{no, nothing} {
		w.rules.Store(under(&says{Answer: yes}, &says{Answer: a}))
		if w.carried() {
			t.Errorf("carried in spite of %+v", a)
		}
		eventually(t, "a line", func() bool {
			return len(w.log.lines("flow refused", "reason="+string(a.Reason), "verdict="+string(a.Reason), `rule="`+a.Rule+`"`)) == 1
		})
	}
}

// TestProgramOnlyNarrows: G09. What the state denies a program isn't asked about.
func TestProgramOnlyNarrows(t *testing.T) {
	w := newWorld(t, Settings{}, service("s", 7001, echo(t)), endpoint("e", "s", nextAddr(t), "10.0.0.0/8"))
	p := &says{Answer: yes}
	w.rules.Store(under(p))
	if w.carried() {
		t.Error("carried")
	}
	if p.asked.Load() != 0 {
		t.Error("the program was asked")
	}
}

// carried reports whether a new flow is.
func (w *world) carried() bool {
	c, err := net.Dial("tcp", w.first())
	if err != nil {
		return false // reset before connect returned
	}
	defer c.Close()
	return ping(c) == nil
}

// ping sends a byte there and back.
func ping(c interface {
	Write([]byte) (int, error)
	Read([]byte) (int, error)
	SetDeadline(time.Time) error
}) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}
