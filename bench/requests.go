//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// asker is one persistent connection of a request load.
type asker struct {
	since time.Time // when the request was sent, or should have been
	busy  bool
	got   int
}

// requests sends requests on persistent connections: as fast as the answers come, or at a fixed
// rate, open loop. With a rate the latency counts from when the request was due, so that a server
// which stalls can't hide it (no coordinated omission).
func (g *generator) requests() error {
	askers := make(map[int]*asker, g.Conns)
	var free []int
	for range g.Conns {
		fd, err := g.dial()
		if err != nil {
			return err
		}
		askers[fd] = new(asker)
		free = append(free, fd)
	}
	if g.Kind == loadRate {
		return g.paced(askers, free)
	}
	for _, fd := range free {
		if err := g.ask(fd, askers[fd], time.Now()); err != nil {
			return err
		}
	}
	return g.loop(func(e unix.EpollEvent) error {
		fd := int(e.Fd)
		a := askers[fd]
		done, err := g.hear(fd, a)
		if err != nil || !done {
			return err
		}
		return g.ask(fd, a, time.Now())
	})
}

// dial opens a connection and waits for it.
func (g *generator) dial() (int, error) {
	fd, err := g.open()
	if err != nil {
		return -1, err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 5000)
		if err == nil {
			break
		}
		if err != unix.EINTR { // by the signals of Go's scheduler
			return -1, fmt.Errorf("poll: %w", err)
		}
	}
	return fd, g.poll.add(fd, unix.EPOLLIN)
}

// ask sends a request that was due at a time.
func (g *generator) ask(fd int, a *asker, due time.Time) error {
	a.since, a.busy, a.got = due, true, 0
	if err := g.sendNow(fd); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	return nil
}

// hear takes a part of a response and reports whether it is complete.
func (g *generator) hear(fd int, a *asker) (bool, error) {
	n, err := g.receive(fd)
	if err != nil {
		return false, fmt.Errorf("response: %w", err)
	}
	a.got += n
	if !a.busy || a.got < messageSize {
		return false, nil
	}
	a.busy = false
	if g.measure {
		g.out.Count++
		g.latency = append(g.latency, time.Since(a.since))
	}
	return true, nil
}

// paced sends requests when a timer says so, each on a connection that waits for nothing. If all
// wait, the request is sent late and its latency shows it.
func (g *generator) paced(askers map[int]*asker, free []int) error {
	interval := time.Second / time.Duration(g.Rate)
	timer, err := g.timer(interval)
	if err != nil {
		return err
	}
	due := time.Now()
	var late []time.Time
	return g.loop(func(e unix.EpollEvent) error {
		fd := int(e.Fd)
		if fd == timer {
			var ticks [8]byte
			if _, err := unix.Read(timer, ticks[:]); err != nil {
				return nil // not yet
			}
			for range min(binary.NativeEndian.Uint64(ticks[:]), uint64(g.Rate)) {
				due = due.Add(interval)
				late = append(late, due)
			}
		} else if done, err := g.hear(fd, askers[fd]); err != nil {
			return err
		} else if done {
			free = append(free, fd)
		}
		for len(late) > 0 && len(free) > 0 {
			fd := free[0]
			if err := g.ask(fd, askers[fd], late[0]); err != nil {
				return err
			}
			free, late = free[1:], late[1:]
		}
		return nil
	})
}

// timer returns a descriptor that is readable once per interval.
func (g *generator) timer(interval time.Duration) (int, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("timerfd: %w", err)
	}
	every := unix.NsecToTimespec(interval.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return -1, fmt.Errorf("timerfd: %w", err)
	}
	return fd, g.poll.add(fd, unix.EPOLLIN)
}
