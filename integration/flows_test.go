package integration

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	lines chan string   // what was received; when it is full nothing more is read
	skip  atomic.Bool   // what is received is of no interest
	gone  chan struct{} // closed when nobody looks at lines any more
	ended chan struct{} // closed after at and err are set
	at    time.Time
	err   error
}

// cutTimeout is, where nothing else is said, a generous bound of what is promised within 1 s; the measured time is logged.
const cutTimeout = 10 * time.Second

const flowsForm = "flows NAME open|fill|echo|flood|stall|half|cut|over|close ..."

// cmdFlows:
//
//	flows NAME open N HOST ADDR:PORT [SNI]   opens N connections and has each one answered
//	flows NAME fill N HOST ADDR:PORT         opens N connections, answered or not
//	flows NAME echo                          every one must still carry a line there and back
//	flows NAME flood                         has the provider send for ever, and reads it
//	flows NAME stall                         the same, and doesn't read it
//	flows NAME half                          closes the client's direction; the answer is a minute away
//	flows NAME cut [-within=DURATION]        every one must end with a reset, within 10 s of the last act
//	flows NAME over                          every one must end within 15 s, whichever way
//	flows NAME close
func cmdFlows(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, flowsForm)
	s, name, verb, rest := of(ts), args[0], args[1], args[2:]
	if verb == "open" || verb == "fill" {
		usage(ts, len(rest) == 3 || len(rest) == 4 && verb == "open", "flows NAME open N HOST ADDR:PORT [SNI] | flows NAME fill N HOST ADDR:PORT")
		n, err := strconv.Atoi(rest[0])
		ts.Check(err)
		f, err := openFlows(s.host(ts, rest[1]), n, rest[2], append(rest[3:], "")[0], verb == "fill")
		ts.Check(err)
		s.flows[name] = f
		if verb == "open" {
			ts.Check(f.echo("opened"))
		}
		return
	}
	f := s.flows[name]
	usage(ts, f != nil, flowsForm+", of flows that were opened")
	within := cutTimeout
	if len(rest) == 1 && verb == "cut" && strings.HasPrefix(rest[0], "-within=") {
		within, rest = duration(ts, rest[0][len("-within="):]), nil
	}
	usage(ts, len(rest) == 0, flowsForm)
	switch verb {
	case "echo":
		ts.Check(f.echo("still there"))
	case "flood", "stall":
		ts.Check(f.do(func(_ int, one *flow) error {
			one.skip.Store(verb == "flood")
			_, err := io.WriteString(one.conn, "flood\n")
			return err
		}))
	case "half":
		ts.Check(f.do(func(_ int, one *flow) error {
			_, err := io.WriteString(one.conn, "late 1m\n")
			return errors.Join(err, one.conn.(*net.TCPConn).CloseWrite())
		}))
	case "cut":
		slowest, err := f.cut(*s.acted.Load(), within)
		ts.Check(err)
		say(ts, "%d flows cut, the last after %v", len(f.each), slowest.Round(time.Millisecond))
	case "over":
		ts.Check(f.over(15 * time.Second))
	case "close":
		f.close()
		delete(s.flows, name)
	default:
		usage(ts, false, flowsForm)
	}
}

// openFlows opens n connections. Where some may be refused, those count as ended.
func openFlows(h *host, n int, addr, sni string, some bool) (*flows, error) {
	f := &flows{}
	for range n {
		one := &flow{lines: make(chan string, 4), gone: make(chan struct{}), ended: make(chan struct{})}
		conn, err := h.dial(addr, 10*time.Second)
		switch {
		case err != nil && !some:
			f.close()
			return nil, err
		case err != nil:
			one.at, one.err = time.Now(), err
			close(one.ended)
		default:
			if sni != "" {
				conn = tls.Client(conn, &tls.Config{ServerName: sni, RootCAs: pki.pool})
			}
			one.conn = conn
			go one.read()
		}
		f.each = append(f.each, one)
	}
	return f, nil
}

func (f *flow) read() {
	defer close(f.ended)
	in := bufio.NewReader(f.conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			f.at, f.err = time.Now(), err
			return
		}
		if f.skip.Load() {
			continue
		}
		select {
		case f.lines <- line:
		case <-f.gone:
		}
	}
}

// do does something on every flow, counted from 0, under a write deadline.
func (f *flows) do(act func(int, *flow) error) error {
	for i, one := range f.each {
		_ = one.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if err := act(i, one); err != nil {
			return fmt.Errorf("flow %d of %d: %w", i, len(f.each), err)
		}
	}
	return nil
}

// echo sends a line on every flow, then waits for all of them to come back.
func (f *flows) echo(what string) error {
	err := f.do(func(i int, one *flow) error {
		_, err := fmt.Fprintf(one.conn, "%s %d\n", what, i)
		return err
	})
	if err != nil {
		return err
	}
	timeout := time.After(20 * time.Second)
	return f.do(func(i int, one *flow) error {
		select {
		case line := <-one.lines:
			if want := fmt.Sprintf("%s %d\n", what, i); line != want {
				return fmt.Errorf("sent %q, received %q", want, line)
			}
			return nil
		case <-one.ended:
			return fmt.Errorf("ended: %w", one.err)
		case <-timeout:
			return errors.New("no answer")
		}
	})
}

// cut waits for the reset of every flow and returns how long after the act the last one came.
func (f *flows) cut(acted time.Time, within time.Duration) (slowest time.Duration, err error) {
	if err := f.over(time.Until(acted.Add(within))); err != nil {
		return 0, err
	}
	for i, one := range f.each {
		if !errors.Is(one.err, syscall.ECONNRESET) {
			return 0, fmt.Errorf("flow %d of %d ended without a reset: %w", i, len(f.each), one.err)
		}
		slowest = max(slowest, one.at.Sub(acted))
	}
	return slowest, nil
}

// over waits for the end of every flow. What they had received and nobody read is read now.
func (f *flows) over(timeout time.Duration) error {
	late := time.After(timeout)
	for i, one := range f.each {
		for alive := true; alive; {
			select {
			case <-one.lines:
			case <-one.ended:
				alive = false
			case <-late:
				return fmt.Errorf("flow %d of %d is alive", i, len(f.each))
			}
		}
	}
	return nil
}

func (f *flows) close() {
	var wait sync.WaitGroup
	for _, one := range f.each {
		wait.Go(func() {
			close(one.gone)
			if one.conn != nil {
				one.conn.Close()
			}
			<-one.ended
		})
	}
	wait.Wait()
}
