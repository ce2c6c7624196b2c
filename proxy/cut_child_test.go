package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// asCut makes the binary of the tests one of the processes of TestCutTenThousand: the clients or the targets.
// Each has its own descriptors, so that the proxy has all of its process for itself.
const asCut = "POSTERN_TEST_CUT"

// manyFlows are flows in one state through one endpoint, as the clients are told of them.
type manyFlows struct {
	State byte // one of manyStates; also the first byte that a client sends, which tells the target
	Addr  string
	N     int
	Cut   bool
	Hello []byte // of a flow in the state 'h'; such a client sends it when all is over

	flows []*manyFlow
}

// manyStates are the states in the order in which they are brought about, with how many of a thousand flows are in
// each. Those of which the proxy holds bytes have pipes too, so there are few; the last leave nobody much of the machine.
var manyStates = []struct {
	state byte
	share int
}{
	{'h', 150}, // the proxy waits for its hello
	{'i', 539}, // idle
	{'c', 150}, // half-closed by the client
	{'t', 150}, // half-closed by the target
	{'b', 10},  // the target reads nothing, and the client writes
	{'s', 1},   // at full speed, both ways
}

// manyFlow is one client.
type manyFlow struct {
	*net.TCPConn
	moved atomic.Int64 // bytes, in the states 'b' and 's'
}

// uptime is a clock that all processes of a machine share.
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // there is no Linux without it
	}
	return time.Duration(now.Nano())
}

// cutChild is the process of clients or targets, and ends with its standard input.
func cutChild(role string) error {
	in := bufio.NewReader(os.Stdin)
	if role == "targets" {
		return cutTargets(in)
	}
	return cutClients(in)
}

// cutTargets says where it listens. A line has the targets go on; each one is answered with how many
// bytes came to half-closed ones since.
func cutTargets(in *bufio.Reader) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	resume, heard := make(chan struct{}), new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Println(err) // which isn't what is waited for
				return
			}
			go cutTarget(c.(*net.TCPConn), resume, heard)
		}
	}()
	for goOn := sync.OnceFunc(func() { close(resume) }); ; {
		if _, err := in.ReadString('\n'); err != nil {
			return nil
		}
		goOn()
		fmt.Println(heard.Load())
	}
}

// cutTarget is the far side of a flow. A client is answered with one byte; then the state begins.
func cutTarget(c *net.TCPConn, resume <-chan struct{}, heard *atomic.Int64) {
	defer c.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		return // a probe
	}
	c.Write(first)
	switch first[0] {
	case 'i', 's':
		io.Copy(c, c)
	case 'c':
		io.Copy(io.Discard, c)
		c.Write(first)
		<-resume
		c.Write(first)
	case 't':
		c.CloseWrite()
		n, _ := io.Copy(io.Discard, c)
		heard.Add(n)
	case 'b':
		<-resume
		io.Copy(io.Discard, c)
	default: // a hello
		io.Copy(io.Discard, c)
	}
}

// cutClients opens the flows that the first line describes and says so. The second line has it watch those that are to
// be cut: it says when the last one was, and how many ended otherwise than with a reset. The third has the
// others go on: it says how many don't.
func cutClients(in *bufio.Reader) error {
	var groups []*manyFlows
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &groups)
	}
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := g.open(); err != nil {
			return fmt.Errorf("state %c: %w", g.State, err)
		}
	}
	fmt.Println("open")
	if _, err := in.ReadString('\n'); err != nil {
		return nil
	}
	fmt.Println(watchCut(groups))
	if _, err := in.ReadString('\n'); err != nil {
		return nil
	}
	touched, why := 0, error(nil)
	slices.Reverse(groups) // those at full speed end first
	for _, g := range groups {
		if g.Cut {
			continue
		}
		for _, f := range g.flows {
			if err := g.goOn(f); err != nil {
				touched, why = touched+1, fmt.Errorf("state %c: %w", g.State, err)
			}
		}
	}
	fmt.Println(touched, why)
	_, err = io.Copy(io.Discard, in)
	return err
}

// open connects the flows, some at a time, and brings them into their state.
func (g *manyFlows) open() error {
	g.flows = make([]*manyFlow, g.N)
	errs := make([]error, 64)
	var next atomic.Int64
	var all sync.WaitGroup
	for w := range errs {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < g.N && errs[w] == nil; i = int(next.Add(1)) - 1 {
				g.flows[i], errs[w] = g.openOne()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (g *manyFlows) openOne() (*manyFlow, error) {
	c, err := net.DialTimeout("tcp", g.Addr, patience)
	if err != nil {
		return nil, err
	}
	f := &manyFlow{TCPConn: c.(*net.TCPConn)}
	if g.State == 'h' {
		return f, nil
	}
	defer f.SetReadDeadline(time.Time{})
	if err := f.turn(g.State); err != nil {
		return nil, err
	}
	switch g.State {
	case 'c':
		f.CloseWrite()
		err = f.hear()
	case 't':
		if err = f.hear(); err == io.EOF {
			err = nil
		}
	case 'b':
		full := make(chan struct{})
		go f.flood(full)
		<-full
	case 's':
		go f.flood(nil)
		go f.drain()
	}
	return f, err
}

// turn sends a byte and waits for one.
func (f *manyFlow) turn(b byte) error {
	if _, err := f.Write([]byte{b}); err != nil {
		return err
	}
	return f.hear()
}

// hear waits for a byte.
func (f *manyFlow) hear() error {
	f.SetReadDeadline(time.Now().Add(patience))
	_, err := io.ReadFull(f, make([]byte, 1))
	return err
}

// flood writes until the connection fails. It closes full, where there is one, when nobody takes more.
func (f *manyFlow) flood(full chan struct{}) {
	b := make([]byte, 16<<10)
	if full != nil {
		f.SetWriteBuffer(8 << 10)
		f.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	}
	for {
		n, err := f.Write(b)
		if full != nil {
			f.moved.Add(int64(n))
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.SetWriteDeadline(time.Time{})
			close(full)
		case err != nil:
			return
		}
	}
}

// drain reads until the connection fails.
func (f *manyFlow) drain() {
	for b := make([]byte, 16<<10); ; {
		n, err := f.Read(b)
		f.moved.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// watchCut waits until every flow that is to be cut is closed, which none is by this process.
func watchCut(groups []*manyFlows) string {
	var left []*manyFlow
	for _, g := range groups {
		if g.Cut {
			left = append(left, g.flows...)
		}
	}
	for late := time.Now().Add(patience); len(left) > 0; time.Sleep(2 * time.Millisecond) {
		left = slices.DeleteFunc(left, func(f *manyFlow) bool { return tcpState(f.TCPConn) == unix.BPF_TCP_CLOSE })
		if time.Now().After(late) {
			return fmt.Sprintf("%d clients were never told", len(left))
		}
	}
	last, otherwise := uptime(), 0
	for _, g := range groups {
		for _, f := range g.flows {
			// Of the others the writer was told, or there is the end of the file to read.
			if g.Cut && strings.ContainsRune("hic", rune(g.State)) && !isReset(f.TCPConn) {
				otherwise++
			}
		}
	}
	return fmt.Sprint(int64(last), " ", otherwise)
}

// goOn finds out whether a flow still carries what its state lets through.
func (g *manyFlows) goOn(f *manyFlow) error {
	switch g.State {
	case 'h':
		if _, err := f.Write(g.Hello); err != nil {
			return err
		}
		return f.hear()
	case 'i':
		return f.turn('i')
	case 'c':
		return f.hear()
	case 't':
		_, err := f.Write([]byte{'t'})
		f.CloseWrite()
		return err
	}
	before := f.moved.Load()
	for late := time.Now().Add(patience); f.moved.Load() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			return errors.New("nothing moves")
		}
	}
	reset(f.TCPConn)
	return nil
}
