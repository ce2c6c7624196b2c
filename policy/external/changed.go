package external

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// maxTelling is how many bytes of connections one message has, below the bound of messages.
const maxTelling = 48 << 10

// Changed implements [policy.Program].
func (p *Program) Changed(s *link.Snapshot) {
	if !p.config.Changes || s == nil {
		return
	}
	for {
		now := p.newest.Load()
		if now != nil && now.Revision() >= s.Revision() {
			return
		}
		if p.newest.CompareAndSwap(now, s) {
			p.kick()
			return
		}
	}
}

// kick wakes tell.
func (p *Program) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// tell tells the program what has changed, until Close: after a start all that there is, then the difference
// between what it was told last and the newest, at most once in tellEvery.
func (p *Program) tell() {
	var told *link.Snapshot // by run; nil: nothing
	var run *instance
	for {
		select {
		case <-p.life.Done():
			return
		case <-p.wake:
		}
		in, now := p.current.Load(), p.newest.Load()
		if in != run {
			run, told = in, nil
		}
		if in == nil || now == nil || now == told {
			continue
		}
		if err := p.tellOf(in, told, now); err != nil {
			told = nil // what it knows isn't known
			if p.life.Err() == nil && p.current.Load() == in {
				p.log.Warn("the policy program could not be told what has changed, it will be told everything", "error", reasonOf(err))
				time.AfterFunc(changedTime, p.kick)
			}
		} else {
			told = now
		}
		select {
		case <-p.life.Done():
			return
		case <-time.After(tellEvery):
		}
	}
}

// tellOf sends what differs between two snapshots, in messages of bounded size; all of now where old is nil.
func (p *Program) tellOf(in *instance, old, now *link.Snapshot) error {
	m := &policypb.ChangedRequest{Revision: now.Revision(), Whole: old == nil}
	size := 0
	send := func(more bool) error {
		ctx, cancel := context.WithTimeout(p.life, changedTime)
		defer cancel()
		m.More = more
		_, err := in.policy.Changed(ctx, m)
		m, size = &policypb.ChangedRequest{Revision: now.Revision()}, 0
		return err
	}
	any := false
	for k := range differing(old, now) {
		n := proto.Size(k) + 8
		if size+n > maxTelling {
			if err := send(true); err != nil {
				return err
			}
		}
		m.Connections, size, any = append(m.Connections, k), size+n, true
	}
	if !any && old != nil {
		return nil
	}
	return send(false)
}

// differing yields the connections of now that old doesn't have as they are, and those that have gone.
func differing(old, now *link.Snapshot) iter.Seq[*policypb.Connection] {
	return func(yield func(*policypb.Connection) bool) {
		for e := range now.Endpoints() {
			if old != nil && same(old.Endpoint(e.ID), e) {
				continue
			}
			if !yield(connection(e)) {
				return
			}
		}
		if old == nil {
			return
		}
		for e := range old.Endpoints() {
			if now.Endpoint(e.ID) == nil {
				k := connection(e)
				k.Gone = true
				if !yield(k) {
					return
				}
			}
		}
	}
}

// same reports whether a program that was told of a need not be told of b. a may be nil.
func same(a, b *link.Endpoint) bool {
	if a == nil || a == b {
		return a != nil
	}
	return proto.Equal(connection(a), connection(b))
}

func connection(e *link.Endpoint) *policypb.Connection {
	return &policypb.Connection{Endpoint: endpoint(e), State: string(e.Connection.State), Suspended: e.Connection.Suspended != nil}
}
