package integration

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// flows are live connections that a scenario holds while things change around them.
type flows struct {
	each []*flow
}

// flow is one of them. Its reader notes the moment and kind of its end.
type flow struct {
	conn  net.Conn
	lines chan string
	ended chan struct{} // closed after end and err are set
	at    time.Time
	err   error
}

// cutTimeout is, where nothing else is said, a generous bound of what is promised within 1 s; the measured time is logged.
const cutTimeout = 5 * time.Second

// cmdFlows:
//
//	flows NAME open N HOST ADDR:PORT [SNI]   opens N connections and has each one answered
//	flows NAME fill N HOST ADDR:PORT         opens N connections, answered or not
//	flows NAME echo                          every one must still carry a line there and back
//	flows NAME cut [-within=DURATION]        every one must end with a reset, within 5 s of the last act
//	flows NAME close
func cmdFlows(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "flows NAME open|fill|echo|cut|close ...")
	s := of(ts)
	f := s.flows[args[0]]
	within := cutTimeout
	if d, ok := strings.CutPrefix(args[len(args)-1], "-within="); ok && args[1] == "cut" {
		within, args = duration(ts, d), args[:len(args)-1]
	}
	if args[1] != "open" && args[1] != "fill" {
		usage(ts, f != nil && len(args) == 2, "flows NAME echo|cut|close, of flows that were opened")
	}
	switch args[1] {
	case "open", "fill":
		usage(ts, len(args) == 5 || len(args) == 6, "flows NAME open|fill N HOST ADDR:PORT [SNI]")
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		f, err = openFlows(s.host(ts, args[3]), n, args[4], append(args[5:], "")[0])
		ts.Check(err)
		s.flows[args[0]] = f
		if args[1] == "open" {
			ts.Check(f.echo("opened"))
		}
	case "echo":
		ts.Check(f.echo("still there"))
	case "cut":
		slowest, err := f.cut(*s.acted.Load(), within)
		ts.Check(err)
		say(ts, "%d flows cut, the last after %v", len(f.each), slowest.Round(time.Millisecond))
	case "close":
		f.close()
		delete(s.flows, args[0])
	default:
		usage(ts, false, "flows NAME open|fill|echo|cut|close ...")
	}
}

func openFlows(h *host, n int, addr, sni string) (*flows, error) {
	f := &flows{}
	for range n {
		conn, err := h.dial(addr, 10*time.Second)
		if err != nil {
			f.close()
			return nil, err
		}
		if sni != "" {
			conn = tls.Client(conn, &tls.Config{ServerName: sni, RootCAs: pki.pool})
		}
		one := &flow{conn: conn, lines: make(chan string, 4), ended: make(chan struct{})}
		go one.read()
		f.each = append(f.each, one)
	}
	return f, nil
}

func (f *flow) read() {
	in := bufio.NewReader(f.conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			f.at, f.err = time.Now(), err
			close(f.ended)
			return
		}
		f.lines <- line
	}
}

// echo sends a line on every flow, then waits for all of them to come back.
func (f *flows) echo(what string) error {
	for i, one := range f.each {
		_ = one.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(one.conn, "%s %d\n", what, i); err != nil {
			return fmt.Errorf("flow %d of %d: %w", i, len(f.each), err)
		}
	}
	timeout := time.After(20 * time.Second)
	for i, one := range f.each {
		select {
		case line := <-one.lines:
			if want := fmt.Sprintf("%s %d\n", what, i); line != want {
				return fmt.Errorf("flow %d of %d: sent %q, received %q", i, len(f.each), want, line)
			}
		case <-one.ended:
			return fmt.Errorf("flow %d of %d ended: %w", i, len(f.each), one.err)
		case <-timeout:
			return fmt.Errorf("flow %d of %d: no answer", i, len(f.each))
		}
	}
	return nil
}

// cut waits for the end of every flow and returns how long after the act the last one ended.
func (f *flows) cut(acted time.Time, within time.Duration) (slowest time.Duration, err error) {
	timeout := time.After(time.Until(acted.Add(within)))
	for i, one := range f.each {
		select {
		case <-one.ended:
		case <-timeout:
			return 0, fmt.Errorf("flow %d of %d is alive %v after the act", i, len(f.each), within)
		}
		if !errors.Is(one.err, syscall.ECONNRESET) {
			return 0, fmt.Errorf("flow %d of %d ended without a reset: %w", i, len(f.each), one.err)
		}
		slowest = max(slowest, one.at.Sub(acted))
	}
	return slowest, nil
}

func (f *flows) close() {
	var wait sync.WaitGroup
	for _, one := range f.each {
		wait.Go(func() {
			one.conn.Close()
			<-one.ended
		})
	}
	wait.Wait()
}
