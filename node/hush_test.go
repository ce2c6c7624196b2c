//go:build linux

package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node/succession"
	"github.com/postern-link/postern/policy"
)

// slowHeir returns both ends of a connection on which two or three messages of flows have room.
func slowHeir(t *testing.T) (mine, heir *succession.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 32<<10); err != nil {
		t.Fatal(err)
	}
	for i, c := range []**succession.Conn{&mine, &heir} {
		if *c, err = succession.NewConn(fds[i]); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { heir.Close() })
	heir.SetReadDeadline(time.Now().Add(handPatience))
	return mine, heir
}

// manyFlows begins more flows than slowHeir has room for, the last one with its client.
func manyFlows(t *testing.T, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	for range 6 * handAtOnce {
		c := questioner(t, at)
		c.Write([]byte("hello"))
		hears(t, c, "hello")
	}
	last := questioner(t, at)
	last.Write([]byte("hello"))
	hears(t, last, "hello")
	return last
}

// TestRetireHushed (P13): while flows are handed over, the process that gets them may say that something was revoked: within a moment nothing
// passes of those that it hasn't got. They are handed over all the same, with what has come for them.
func TestRetireHushed(t *testing.T) {
	t.Parallel()
	conf, at := udpNode(t, "127.77.0.41")
	conf.Proxy.MaxPerSource = 10 * handAtOnce
	target, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	conf.Declaration.Services[0].Targets[0].Addr = target.LocalAddr().(*net.UDPAddr).AddrPort()
	last := make(chan netip.AddrPort, 1) // where the flow asks from that began last
	go func() {
		for b := make([]byte, 64); ; {
			n, from, err := target.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			select {
			case <-last:
			default:
			}
			last <- from
			target.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	n := open(t, conf)
	defer closeNode(t, n)
	c := manyFlows(t, at)
	from := <-last
	mine, heir := slowHeir(t)
	n.Retire(mine, true)
	const silence = time.Second // and nothing passes
	answered := func(within time.Duration) bool {
		target.WriteToUDPAddrPort([]byte("answer"), from)
		c.SetReadDeadline(time.Now().Add(within))
		_, err := c.Read(make([]byte, 64))
		return err == nil
	}
	if !answered(handPatience) {
		t.Error("no answer though nothing was revoked")
	}
	if err := heir.Send(succession.Message{Kind: succession.Hush}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for answered(silence) {
		if time.Since(began) > handPatience {
			t.Fatal("answers go on to pass")
		}
	}
	t.Logf("nothing passes %v after it was said", time.Since(began)-silence)
	target.WriteToUDPAddrPort([]byte("answer"), from) // the one before may have passed yet
	waits := false
	for settled := false; !settled; {
		m, fds, err := heir.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range m.Handed {
			if f.Source == c.LocalAddr().(*net.UDPAddr).AddrPort() {
				b := make([]byte, 64)
				got, _, err := unix.Recvfrom(fds[i], b, unix.MSG_DONTWAIT)
				waits = err == nil && string(b[:got]) == "answer"
			}
		}
		succession.CloseAll(fds)
		settled = m.Kind == succession.Settled
	}
	if !waits {
		t.Error("the flow wasn't handed over with the answer that waits")
	}
}

// TestRetireBehindOneThatHangs (P13): a process that doesn't read what it is told has only so long: then flows end, since nobody could
// revoke them, and this process can.
func TestRetireBehindOneThatHangs(t *testing.T) {
	t.Parallel()
	conf, at := udpNode(t, "127.77.0.42")
	conf.Proxy.MaxPerSource = 10 * handAtOnce
	n := open(t, conf)
	defer closeNode(t, n)
	manyFlows(t, at)
	mine, _ := slowHeir(t)
	began := time.Now()
	n.Retire(mine, true)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		n.Drain(context.Background())
	}()
	select {
	case <-drained:
	case <-time.After(2*sendTime - sendTime/4): // once, not for each message
		t.Fatal("it waits for a process that hangs")
	}
	if in := time.Since(began); in < sendTime {
		t.Errorf("given up after %v", in)
	}
}

// TestHush (P13): a process that takes flows over says so when its state changes before it has them all, and once. Where the state is shared the
// other process follows it too, but for rules.
func TestHush(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name                                     string
		shared, rules, before, settled, passedOn bool
		hushed                                   bool
	}{
		{name: "after it was there", hushed: true},
		{name: "before", before: true, hushed: true},
		{name: "all have come", settled: true},
		{name: "hosted by another before", passedOn: true, hushed: true},
		{name: "shared", shared: true},
		{name: "shared, before", shared: true, before: true},
		{name: "shared, rules", shared: true, rules: true, hushed: true},
		{name: "shared, rules, before", shared: true, rules: true, before: true, hushed: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf, _ := udpNode(t, fmt.Sprint("127.77.0.", 50+i))
			if tt.rules {
				conf.Policies = []Policy{{Set: policy.Set{Name: "p", Default: policy.DefaultAllow}}}
			}
			var n *Node
			if tt.shared {
				conf.Log = slog.New(slog.DiscardHandler)
				n, _ = openAgeing(t, conf)
			} else {
				n = open(t, conf)
				defer closeNode(t, n)
			}
			n.claimed = n.Snapshot().Revision() // as if another process had stored it
			mine, old := connections(t, false)
			old.SetReadDeadline(time.Now().Add(handPatience))
			change := func() {
				t.Helper()
				decide(t, n, "e0", link.Rejected)
				sees(t, n, "e0", link.Rejected)
			}
			if tt.before {
				change()
			}
			n.host(mine, tt.passedOn)
			if tt.settled {
				if err := old.Send(succession.Message{Kind: succession.Settled}); err != nil {
					t.Fatal(err)
				}
				if err := n.Settle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if !tt.before && !tt.passedOn {
				change()
			}
			if !tt.hushed {
				old.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			}
			m, _, err := old.Receive()
			if err == nil && m.Kind == succession.Sync && tt.passedOn {
				m, _, err = old.Receive()
			}
			if hushed := err == nil && m.Kind == succession.Hush; hushed != tt.hushed || !hushed && err == nil {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// TestHushByTime (P13, X35): what time alone revokes holds for flows that weren't handed over yet, where the hand-over takes long: by a rule, and where the view is
// too old.
func TestHushByTime(t *testing.T) {
	t.Parallel()
	always := policy.Rule{Name: "r", Allow: true, Conditions: policy.Conditions{Times: []policy.Window{{To: 24 * 60}}}}
	for i, tt := range []struct {
		name                        string
		shared, timed, old, settled bool
		hushed                      bool
	}{
		{name: "no rule about the time"},
		{name: "a rule", timed: true, hushed: true},
		{name: "a rule, shared", shared: true, timed: true, hushed: true},
		{name: "a rule, all have come", timed: true, settled: true},
		{name: "the view is too old", shared: true, old: true, hushed: true},
		{name: "the view is fresh", shared: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf, _ := udpNode(t, fmt.Sprint("127.77.0.", 70+i))
			conf.Stale = policy.Limits{Bound: time.Minute, Strict: true}
			if tt.timed {
				conf.Policies = []Policy{{Set: policy.Set{Name: "p", Default: policy.DefaultAllow, Rules: []policy.Rule{always}}}}
			}
			conf.Log = slog.New(slog.DiscardHandler)
			var n *Node
			if tt.shared {
				var view *ageing
				n, view = openAgeing(t, conf)
				if tt.old {
					view.set(time.Hour)
				}
			} else {
				n = open(t, conf)
				defer closeNode(t, n)
			}
			n.claimed = n.Snapshot().Revision()
			mine, old := connections(t, false)
			n.host(mine, false)
			if tt.settled {
				if err := old.Send(succession.Message{Kind: succession.Settled}); err != nil {
					t.Fatal(err)
				}
				if err := n.Settle(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			patience := handPatience
			if !tt.hushed {
				patience = 3 * lookEvery
			}
			old.SetReadDeadline(time.Now().Add(patience))
			m, _, err := old.Receive()
			if hushed := err == nil && m.Kind == succession.Hush; hushed != tt.hushed || !hushed && err == nil {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// TestAnew (P13): flows that aren't decided are told in as many messages as it takes, and begin anew in the node that is told of them.
func TestAnew(t *testing.T) {
	t.Parallel()
	conf, at := udpNode(t, "127.77.0.46")
	n := open(t, conf)
	defer closeNode(t, n)
	mine, old := connections(t, false)
	n.Host(mine)
	c := questioner(t, at)
	source := c.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := old.Send(succession.Message{Kind: succession.Anew, Anew: []succession.Waiting{
		{Source: source, Local: at, Held: []succession.Held{{Data: []byte("onetwo"), Segment: 3}, {Data: []byte("three"), Segment: -1}}},
		{Source: source, Local: netip.AddrPortFrom(at.Addr(), 9), Held: []succession.Held{{Data: []byte("x")}}},
	}}); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two", "three"} {
		hears(t, c, word)
	}
}
