package proxy

import (
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnendedBetweenSignals: a connection that has not ended isn't taken for one that has because a signal came.
func TestUnendedBetweenSignals(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	defer signal.Stop(signals)
	threads := make(chan int)
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		to := <-threads
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), to, unix.SIGWINCH)
			}
		}
	})
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	work.Go(func() {
		runtime.LockOSThread() // the thread ends with it
		defer close(done)
		threads <- unix.Gettid()
		for range 20_000 {
			if !unended(rawControl{raw}) {
				t.Error("it is taken for one that has ended")
				return
			}
		}
	})
	work.Wait()
}

// rawControl is the descriptor of a connection of package net.
type rawControl struct{ syscall.RawConn }

func (c rawControl) Control(f func(fd uintptr)) { _ = c.RawConn.Control(f) }
