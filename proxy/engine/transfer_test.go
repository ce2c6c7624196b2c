package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var transferBytes = flag.Int64("transfer", 0, "bytes that TestTransfers sends each way, with each engine and each family of addresses; 0: as many as are sent soon")

// content is what a side sends; two of one seed are the same.
func content(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32), byte(seed >> 40), byte(seed >> 48), byte(seed >> 56)})
}

// stall is a pause now and then.
func stall(r *rand.Rand) {
	if r.IntN(300) == 0 {
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	}
}

// pour sends so many bytes in pieces.
func pour(c *net.TCPConn, seed uint64, size int64) error {
	r, from, b := rand.New(rand.NewPCG(seed, 1)), content(seed), make([]byte, 256<<10)
	for size > 0 {
		piece := b[:min(size, int64(1+r.IntN([]int{10, 3000, 100_000, len(b)}[r.IntN(4)])))]
		from.Read(piece)
		c.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Write(piece); err != nil {
			return err
		}
		size -= int64(len(piece))
		stall(r)
	}
	return nil
}

var errOther = errors.New("other bytes came than were sent")

// drink reads until the end or an error, and compares.
func drink(c *net.TCPConn, seed uint64) (got int64, err error) {
	r, want, b := rand.New(rand.NewPCG(seed, 2)), content(seed), make([]byte, 200<<10)
	expected := make([]byte, len(b))
	for {
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := c.Read(b[:1+r.IntN(len(b))])
		want.Read(expected[:n])
		if got += int64(n); !bytes.Equal(b[:n], expected[:n]) {
			return got, errOther
		}
		if err == io.EOF {
			return got, nil
		} else if err != nil {
			return got, err
		}
		stall(r)
	}
}

// P04, P07: whatever pauses there are and whoever ends first, each side gets what the other sent, and then its end.
func TestTransfers(t *testing.T) {
	families(t, func(t *testing.T, w *world) {
		const pairs = 4
		total := *transferBytes
		switch {
		case total > 0:
		case raceDetector:
			total = 12 << 20
		default:
			total = 50 << 20
		}
		base := rand.Uint64()
		t.Logf("seed %d", base)
		var all sync.WaitGroup
		for i := range uint64(pairs) {
			p := w.pair(nil)
			for way, ends := range [][2]*net.TCPConn{{p.client, p.target}, {p.target, p.client}} {
				seed := base + 2*i + uint64(way)
				size := total / pairs
				if seed%3 == 0 {
					size = size/2 + 1 // this way ends long before the other
				}
				all.Go(func() {
					if err := pour(ends[0], seed, size); err != nil {
						t.Errorf("seed %d: %v", seed, err)
					}
					ends[0].CloseWrite()
				})
				all.Go(func() {
					if got, err := drink(ends[1], seed); got != size || err != nil {
						t.Errorf("seed %d: %d of %d bytes came, then %v", seed, got, size, err)
					}
				})
			}
		}
		all.Wait()
		for _, p := range w.pairs {
			if e := p.wait(t); e.Broken != Nobody {
				t.Errorf("ended %+v", e)
			}
		}
	})
}

// P05: who is reset in mid-stream, or behind its end, is so on the other side: what came is what was sent, and then a reset, never
// an end that wasn't one.
func TestResetTransfers(t *testing.T) {
	families(t, func(t *testing.T, w *world) {
		base := rand.Uint64()
		t.Logf("seed %d", base)
		r := rand.New(rand.NewPCG(base, 3))
		var all sync.WaitGroup
		for i := range uint64(30) {
			p := w.pair(nil)
			a, b, side := p.client, p.target, Client
			if i%2 == 1 {
				a, b, side = b, a, Target
			}
			seed, after, half := base+2*i, r.Int64N(3<<20), i%5 == 0
			var ended atomic.Bool // b has heard an end, which a has said
			all.Go(func() {
				pour(a, seed, after)
				if half {
					a.CloseWrite()
					for !ended.Load() {
						time.Sleep(time.Millisecond)
					}
				}
				a.SetLinger(0)
				a.Close()
			})
			all.Go(func() {
				wrote := make(chan error, 1)
				go func() { wrote <- pour(b, seed+1, 1<<40) }() // and something goes the other way
				got, err := drink(b, seed)
				ended.Store(true)
				writing := <-wrote
				switch {
				case errors.Is(err, errOther):
					t.Errorf("seed %d: after %d bytes: %v", seed, got, err)
				case half && (got != after || err != nil):
					t.Errorf("seed %d: %d of %d bytes came, then %v", seed, got, after, err)
				// Only the first who asks is told of a reset. One that came behind an end would be EPIPE.
				case !half && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(writing, syscall.ECONNRESET):
					t.Errorf("seed %d: %d bytes came, then %v, and writing %v; want a reset", seed, got, err, writing)
				}
			})
			all.Go(func() { drink(a, seed+1) })
			all.Go(func() {
				if e := p.wait(t); e.Broken != side {
					t.Errorf("seed %d: ended %+v, want side %d broken", seed, e, side)
				}
			})
		}
		all.Wait()
	})
}

// families runs a test on every engine with IPv4 and IPv6.
func families(t *testing.T, test func(t *testing.T, w *world)) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		each(t, func(t *testing.T, w *world) {
			w.ip = net.ParseIP(ip)
			t.Run(fmt.Sprint("at ", ip), func(t *testing.T) { test(t, w) })
		})
	}
}
