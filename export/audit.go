package export

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// What a page of the audit record has at most: so many entries, and so many bytes of them as they are stored, or one.
const (
	pageEntries = 255 // beside the one at the position, so that a store reads once
	pageBytes   = 1 << 20
)

// fitsAgain is how many pages in a row a receiver takes before it is tried with larger ones.
const fitsAgain = 64

// errReplaced: the record isn't the one that the position was taken of. What the receiver lacks can't be known.
var errReplaced = errors.New("the state's audit record is not the one that the position is of")

// entry is one of the audit record with what it was made of.
type entry struct {
	store.Entry
	line  store.Line
	chain store.Chain // after it
}

// lineHead is what stands before an entry in its line: a byte of format and the chain ([store.Chain.Append]).
const lineHead = 1 + len(store.Chain{})

// body returns the entry as it is stored, which the chain was computed of.
func (e entry) body() []byte { return e.line.Bytes[lineHead:] }

// audit sends the audit record to one receiver.
type audit struct {
	r        *Receiver
	stop     context.CancelFunc
	work     sync.WaitGroup
	send     *sender
	disk     complaint // of the file
	at       position
	most     int // entries of a page: fewer where the receiver finds it too large
	fitted   int // pages that it has taken since
	newest   uint64
	snapshot <-chan *link.Snapshot
}

// startAudit begins to send.
func (r *Receiver) startAudit() *audit {
	a := &audit{r: r, most: pageEntries, disk: complaint{log: r.log, what: "the position"}}
	a.send = &sender{r: r, what: "audit", tell: complaint{log: r.log, what: "entries of the audit record"}}
	var ctx context.Context
	ctx, a.stop = context.WithCancel(context.Background())
	a.work.Go(func() { a.run(ctx) })
	return a
}

// end stops sending and waits for it. a may be nil.
func (a *audit) end() {
	if a != nil {
		a.stop()
		a.work.Wait()
	}
}

// run is the goroutine that sends the audit record.
func (a *audit) run(ctx context.Context) {
	if !a.begin(ctx) {
		return
	}
	a.snapshot = a.r.options.Source.Watch(ctx)
	wait := newBackoff(a.r.pace)
	for ctx.Err() == nil {
		page, err := a.page(ctx)
		switch {
		case err == nil && len(page) == 0:
			a.send.tell.over()
			a.more(ctx)
			continue
		case err == nil:
			var asked time.Duration
			if asked, err = a.deliver(ctx, page); err == nil {
				a.send.tell.over()
				wait.reset()
				continue
			}
			if ctx.Err() == nil {
				a.r.metrics.failed("audit")
				a.send.tell.away(err)
				pause(ctx, wait.next(asked))
			}
			continue
		}
		// The state is closed for another process, can't be reached, or is another one.
		if ctx.Err() == nil && !errors.Is(err, store.ErrClosed) {
			a.send.tell.away(err)
		}
		pause(ctx, wait.next(0))
		if errors.Is(err, errReplaced) {
			a.begin(ctx) // the operator may have decided
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// begin reads the position. A file that is damaged counts as none: entries come again, and none is missing. It reports false where ctx is
// done.
func (a *audit) begin(ctx context.Context) bool {
	path := a.r.config.Position
	for wait := newBackoff(a.r.pace); ; pause(ctx, wait.next(0)) {
		at, err := readPosition(path)
		switch {
		case ctx.Err() != nil:
			return false
		case isDamaged(err):
			a.r.log.Error("export: the file with the position is damaged; the audit record is sent again from its first entry", "error", err)
			fallthrough
		case err == nil:
			a.disk.over()
			a.at = at
			a.r.metrics.position.Set(float64(at.revision))
			return true
		}
		a.disk.away(err)
	}
}

// more waits until there may be entries after the position, and a moment for more of them.
func (a *audit) more(ctx context.Context) {
	late := time.NewTimer(a.r.pace.poll)
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			return
		case s, ok := <-a.snapshot:
			if !ok { // the store has ended
				<-ctx.Done()
				return
			}
			if a.see(s.Revision()); a.newest > a.at.revision {
				pause(ctx, a.r.pace.linger)
				return
			}
		}
	}
}

// see notes the newest revision that is known of.
func (a *audit) see(revision uint64) {
	a.newest = max(a.newest, revision)
	a.r.metrics.lag.Set(float64(a.newest - min(a.newest, a.at.revision)))
}

// page reads the entries after the position. It begins with the one at the position: if that isn't there as it was, nothing is guessed. The
// store isn't read any more when it returns.
func (a *audit) page(ctx context.Context) (page []entry, err error) {
	select {
	case s, ok := <-a.snapshot: // for the lag, which shows how much waits while a receiver is away
		if ok {
			a.see(s.Revision())
		}
	default:
	}
	chain, size := a.at.chain, 0
	from := max(a.at.revision, 1)
	met := a.at.revision == 0
	for l, err := range a.r.options.Source.Lines(ctx, from) {
		if err != nil {
			return nil, err
		}
		if !met {
			met = true
			if is, err := store.LineChain(l.Bytes); err != nil || l.Revision != a.at.revision || is != chain {
				return nil, a.replaced()
			}
			continue
		}
		e := entry{line: l}
		if e.Entry, chain, err = chain.Next(l.Revision, l.Bytes); err != nil {
			if len(page) > 0 {
				break // what is whole goes first
			}
			return nil, err
		}
		e.chain = chain
		if size += len(l.Bytes); len(page) > 0 && size > pageBytes {
			break
		}
		if page = append(page, e); len(page) >= a.most {
			break
		}
	}
	if !met {
		return nil, a.replaced()
	}
	if n := len(page); n > 0 {
		a.see(page[n-1].Revision)
	}
	return page, nil
}

func (a *audit) replaced() error {
	return fmt.Errorf("%w (revision %d): if the state was replaced on purpose, remove %s, and it is sent from its first entry",
		errReplaced, a.at.revision, a.r.config.Position)
}

// deliver sends a page and keeps the position after it. asked is how long the receiver wants to be left alone.
func (a *audit) deliver(ctx context.Context, page []entry) (asked time.Duration, err error) {
	r := a.r
	body, err := a.send.body(r.format.audit(page))
	if err != nil {
		return 0, err
	}
	got := r.client.post(ctx, r.pace.request, "audit", r.format.contentType(), body)
	if got.err == nil {
		if got.reject(r.format); got.rejected > 0 {
			got.err = errPartly // all again: which ones it hasn't taken it doesn't say
		}
	}
	if got.err != nil {
		if got.large {
			a.most, a.fitted = max(1, len(page)/2), 0
		}
		return got.after, got.err
	}
	if a.fitted++; a.fitted >= fitsAgain {
		a.most, a.fitted = min(pageEntries, 2*a.most), 0
	}
	last := page[len(page)-1]
	a.at = position{last.Revision, last.chain}
	r.metrics.sent("audit", len(page))
	r.metrics.position.Set(float64(last.Revision))
	a.see(last.Revision)
	if err := a.at.write(r.config.Position); err != nil {
		a.disk.away(fmt.Errorf("after a restart entries are sent again: %w", err))
	} else {
		a.disk.over()
	}
	return 0, nil
}
