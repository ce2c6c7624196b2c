package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/proxy"
)

// drainExports is how long a receiver that is taken out, or a process that ends, goes on sending flow records.
const drainExports = 5 * time.Second

// ExportError is a receiver of a configuration that can't be had.
type ExportError struct {
	Name string
	Err  error
}

// Error says why.
func (e *ExportError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExportError) Unwrap() error { return e.Err }

// exports are the receivers in force.
type exports struct {
	taps    atomic.Pointer[proxy.Tap] // nil: nobody takes flow records
	metrics *export.Metrics           // nil before the first; guarded by the node's change
	ending  sync.WaitGroup

	mu   sync.Mutex // guards what follows
	now  []*export.Receiver
	away bool // the state is another process's
}

// running returns the receiver of a name that is in force, nil where there is none.
func (x *exports) running(name string) *export.Receiver {
	x.mu.Lock()
	defer x.mu.Unlock()
	return named(x.now, name)
}

// tap returns who takes flow records.
func (x *exports) tap() proxy.Tap {
	if t := x.taps.Load(); t != nil {
		return *t
	}
	return nil
}

// named returns the receiver of a name, nil where there is none.
func named(all []*export.Receiver, name string) *export.Receiver {
	if i := slices.IndexFunc(all, func(r *export.Receiver) bool { return r.Config().Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// prepareExports makes the receivers of a configuration. One that is as before is the same and goes on.
func (n *Node) prepareExports(wanted []export.Config) (next []*export.Receiver, err error) {
	if len(wanted) > 0 && n.exports.metrics == nil {
		if n.exports.metrics, err = export.NewMetrics(n.register); err != nil {
			return nil, err
		}
	}
	for _, c := range wanted {
		r := n.exports.running(c.Name)
		if r == nil || r.Config() != c {
			r, err = export.New(c, export.Options{Node: n.name, Source: n.store, Log: n.log, Metrics: n.exports.metrics})
			if err != nil {
				n.abandonExports(next)
				return nil, &ExportError{c.Name, err}
			}
		}
		next = append(next, r)
	}
	return next, nil
}

// abandonExports forgets receivers that don't come into force.
func (n *Node) abandonExports(next []*export.Receiver) {
	for _, r := range next {
		if name := r.Config().Name; n.exports.running(name) == nil {
			n.exports.metrics.Forget(name)
		}
	}
}

// commitExports puts receivers in force. One that has changed takes over what waits of the one before; those that are taken out end in the
// background.
func (n *Node) commitExports(next []*export.Receiver) {
	x := &n.exports
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.now
	x.now = next
	x.taps.Store(tapOf(next)) // before anybody ends: a record is lost nowhere
	for _, r := range old {
		if named(next, r.Config().Name) == nil {
			r.PauseAudit() // before one of another name goes on with its position
		}
	}
	for _, r := range next {
		if slices.Contains(old, r) {
			continue
		}
		if before := named(old, r.Config().Name); before != nil {
			r.Succeed(before)
		}
		r.Start(!x.away)
	}
	for _, r := range old {
		if name := r.Config().Name; named(next, name) == nil {
			x.ending.Go(func() { n.endExport(r) })
		}
	}
}

// tapOf gives records to all that want them.
func tapOf(all []*export.Receiver) *proxy.Tap {
	all = slices.DeleteFunc(slices.Clone(all), func(r *export.Receiver) bool { return !r.Config().Flows })
	if len(all) == 0 {
		return nil
	}
	tap := proxy.Tap(func(flows []slog.Record, lost int64) {
		for _, r := range all {
			r.Add(flows, lost)
		}
	})
	return &tap
}

// endExport ends a receiver that was taken out. Its metrics go, unless one of its name has come.
func (n *Node) endExport(r *export.Receiver) {
	ctx, cancel := context.WithTimeout(context.Background(), drainExports)
	defer cancel()
	r.Close(ctx)
	if n.life.Err() != nil {
		return // the process ends: its last figures may be read yet
	}
	x := &n.exports
	x.mu.Lock()
	defer x.mu.Unlock()
	if named(x.now, r.Config().Name) == nil {
		x.metrics.Forget(r.Config().Name)
	}
}

// pause has the audit record sent by nobody here.
func (x *exports) pause() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.away = true
	for _, r := range x.now {
		r.PauseAudit()
	}
}

// resume undoes pause.
func (x *exports) resume() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.away = false
	for _, r := range x.now {
		r.ResumeAudit()
	}
}

// closeExports ends all receivers, with what they can send in a while.
func (n *Node) closeExports() {
	x := &n.exports
	x.mu.Lock()
	for _, r := range x.now {
		x.ending.Go(func() { n.endExport(r) })
	}
	x.now = nil
	x.mu.Unlock()
	x.ending.Wait()
	x.metrics.Unregister()
}
