//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of load.
const (
	loadUpload   = "upload"   // bulk streams to the provider
	loadDownload = "download" // bulk streams from the provider
	loadConnect  = "connect"  // connect, one request, its response, close; again
	loadRequest  = "request"  // one request after the other on each of the connections
	loadRate     = "rate"     // the same at a fixed rate of requests
	loadIdle     = "idle"     // connections with one request behind them, which then are silent
	loadCut      = "cut"      // the same, until each is reset
)

// order is what the load generator shall do. It is read from standard input as JSON.
type order struct {
	Kind    string         `json:"kind"`
	Target  netip.AddrPort `json:"target"`
	Sources []netip.Addr   `json:"sources"`
	Conns   int            `json:"conns"`
	First   []byte         `json:"first,omitempty"` // what a short connection begins with, instead of a message
	Rate    int            `json:"rate,omitempty"`  // requests per second, loadRate only
	Seconds float64        `json:"seconds"`         // of the measured window; not for loadIdle and loadCut
	Warm    float64        `json:"warm"`            // seconds before it
}

// outcome is what the generator saw within the window.
type outcome struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes,omitempty"`
	Count   int64   `json:"count,omitempty"`  // requests, short connections, idle connections, or resets
	Errors  int64   `json:"errors,omitempty"` // connections that failed
	P50     float64 `json:"p50,omitempty"`    // seconds
	P99     float64 `json:"p99,omitempty"`    // seconds
	Last    float64 `json:"last,omitempty"`   // uptime in seconds when the last connection had ended; loadCut only
}

// began is the line that says that the window begins; the next line is the outcome.
const began = "began"

// generator is the load of one order: a loop over epoll, with one clock and one record.
type generator struct {
	order
	poll    *poller
	buf     []byte
	next    int // the next source
	out     outcome
	latency []time.Duration
	measure bool // within the window
}

// runLoad carries out the order on standard input, and stays until standard input ends, so that its
// CPU time can be read.
func runLoad() error {
	input := json.NewDecoder(os.Stdin)
	g := &generator{buf: make([]byte, discardSize), latency: make([]time.Duration, 0, 1<<20)}
	if err := input.Decode(&g.order); err != nil {
		return fmt.Errorf("the order: %w", err)
	}
	var err error
	if g.poll, err = newPoller(); err != nil {
		return err
	}
	switch g.Kind {
	case loadUpload, loadDownload:
		err = g.bulk()
	case loadConnect:
		err = g.connects()
	case loadRequest, loadRate:
		err = g.requests()
	case loadIdle:
		_, err = g.idle()
	case loadCut:
		err = g.cut()
	default:
		err = fmt.Errorf("no such load: %q", g.Kind)
	}
	if err != nil {
		return err
	}
	g.out.P50, g.out.P99 = percentile(g.latency, 50).Seconds(), percentile(g.latency, 99).Seconds()
	if err := json.NewEncoder(os.Stdout).Encode(g.out); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// percentile returns the smallest value that p percent of the values don't exceed. It sorts them.
func percentile(values []time.Duration, p int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, (len(values)*p+99)/100-1)]
}

// open begins a connection from the next source.
func (g *generator) open() (int, error) {
	source := g.Sources[g.next%len(g.Sources)]
	g.next++
	return connect(source, g.Target)
}

// loop calls step for each event: first for the warm-up, then for the window.
func (g *generator) loop(step func(unix.EpollEvent) error) error {
	start := time.Now()
	window := start.Add(seconds(g.Warm))
	end := window.Add(seconds(g.Seconds))
	for {
		events, err := g.poll.wait(20)
		if err != nil {
			return err
		}
		now := time.Now()
		if !g.measure && now.After(window) {
			g.measure, start = true, now
			end = now.Add(seconds(g.Seconds))
			fmt.Println(began)
		}
		if g.measure && now.After(end) {
			g.out.Seconds = now.Sub(start).Seconds()
			return nil
		}
		for _, e := range events {
			if err := step(e); err != nil {
				return err
			}
		}
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// sendNow writes a message to a connection that has room for it.
func (g *generator) sendNow(fd int) error {
	m := g.First
	if m == nil {
		g.buf[0] = modeEcho
		m = g.buf[:messageSize]
	}
	n, err := unix.Write(fd, m)
	if err != nil {
		return err
	}
	if n != len(m) {
		return io.ErrShortWrite
	}
	return nil
}

// bulk moves as many bytes as it can.
func (g *generator) bulk() error {
	for range g.Conns {
		fd, err := g.open()
		if err != nil {
			return err
		}
		if err := g.poll.add(fd, unix.EPOLLOUT); err != nil {
			return err
		}
	}
	begun := make(map[int]bool, g.Conns)
	return g.loop(func(e unix.EpollEvent) error {
		fd := int(e.Fd)
		var n int
		var err error
		switch {
		case !begun[fd]:
			begun[fd] = true
			n, err = g.beginBulk(fd)
		case g.Kind == loadUpload:
			n, err = unix.Write(fd, g.buf[:chunkSize])
		default:
			if n, err = discard(fd, g.buf); n == 0 && err == nil {
				err = io.ErrUnexpectedEOF
			}
		}
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return fmt.Errorf("bulk stream: %w", err)
		}
		if g.measure && n > 0 {
			g.out.Bytes += int64(n)
		}
		return nil
	})
}

// beginBulk sends the first byte of a stream.
func (g *generator) beginBulk(fd int) (int, error) {
	if g.Kind == loadUpload {
		return unix.Write(fd, []byte{modeUpload})
	}
	if err := g.poll.change(fd, unix.EPOLLIN); err != nil {
		return 0, err
	}
	_, err := unix.Write(fd, []byte{modeDownload})
	return 0, err
}

// short is one short connection: its beginning, and how much of the response has come.
type short struct {
	since time.Time
	sent  bool
	got   int
}

// connects opens connections, one after the other on each of the places.
func (g *generator) connects() error {
	live := make(map[int]*short, g.Conns)
	for range g.Conns {
		if err := g.openShort(live, new(short)); err != nil {
			return err
		}
	}
	return g.loop(func(e unix.EpollEvent) error {
		fd := int(e.Fd)
		c := live[fd]
		done, err := g.stepShort(fd, c)
		if err == nil && !done {
			return nil
		}
		if g.measure && err != nil {
			g.out.Errors++
		} else if g.measure {
			g.out.Count++
			g.latency = append(g.latency, time.Since(c.since))
		}
		delete(live, fd)
		unix.Close(fd)
		return g.openShort(live, c)
	})
}

// openShort begins a short connection. On loopback the handshake is over when connect returns, so
// the request is tried at once.
func (g *generator) openShort(live map[int]*short, c *short) error {
	*c = short{since: time.Now()}
	fd, err := g.open()
	if err != nil {
		return err
	}
	live[fd] = c
	if g.sendNow(fd) == nil {
		c.sent = true
		return g.poll.add(fd, unix.EPOLLIN)
	}
	return g.poll.add(fd, unix.EPOLLOUT)
}

func (g *generator) stepShort(fd int, c *short) (done bool, err error) {
	if !c.sent {
		if err := g.sendNow(fd); err != nil {
			return false, err
		}
		c.sent = true
		return false, g.poll.change(fd, unix.EPOLLIN)
	}
	n, err := g.receive(fd)
	c.got += n
	return c.got >= messageSize, err
}

// receive reads a part of a response; 0 without an error is none yet.
func (g *generator) receive(fd int) (int, error) {
	n, err := unix.Read(fd, g.buf[:messageSize])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// idle opens all connections, a few at a time, has one request answered on each, and says how many
// there are. They stay until standard input ends, and then are reset, so that nothing lingers.
func (g *generator) idle() (map[int]*short, error) {
	const together = 64
	live := make(map[int]*short, g.Conns)
	waiting, opened, answered := 0, 0, 0
	deadline := time.Now().Add(60 * time.Second)
	for answered < g.Conns && g.out.Errors == 0 {
		for waiting < together && opened < g.Conns {
			if err := g.openShort(live, new(short)); err != nil {
				return nil, err
			}
			opened++
			waiting++
		}
		events, err := g.poll.wait(100)
		if err != nil {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, errors.New("idle connections: not answered within 60 s")
		}
		for _, e := range events {
			done, err := g.stepShort(int(e.Fd), live[int(e.Fd)])
			if err != nil {
				g.out.Errors++
				unix.Close(int(e.Fd))
				delete(live, int(e.Fd))
			}
			if done {
				answered++
			}
			if done || err != nil {
				waiting--
			}
		}
	}
	g.out.Count = int64(answered)
	for fd := range live {
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return nil, fmt.Errorf("linger: %w", err)
		}
	}
	fmt.Println(began)
	return live, nil
}
