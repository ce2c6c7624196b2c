//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"sync"
)

// runRelay is the proxy that a few lines of the standard library make: it accepts at the first address, dials the others in turn,
// and copies both ways with io.Copy, which splices. It ends with its process.
func runRelay(args []string) error {
	if len(args) < 2 {
		return errors.New("relay: an address to listen at, and targets")
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() { done <- relay(l, args[1:]) }() // the goroutine of main is bound to a thread, which would cost
	return <-done
}

func relay(l net.Listener, targets []string) error {
	for i := 0; ; i++ {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go relayed(c.(*net.TCPConn), targets[i%len(targets)])
	}
}

// relayed carries one flow until both directions have ended. A target that can't be dialled ends it.
func relayed(near *net.TCPConn, target string) {
	defer near.Close()
	c, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	far := c.(*net.TCPConn)
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { oneWay(far, near) })
	oneWay(near, far)
	both.Wait()
}

// oneWay copies until the end, and passes it on. A broken side ends the other way too.
func oneWay(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite() // who is gone needs no end
}
