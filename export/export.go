// Package export sends what a node has to tell to receivers elsewhere: its flow records and the audit record of the
// state, to one that speaks OTLP over HTTP or takes JSON lines (a webhook).
//
//	flow records   the log of the data plane ─► Add ─► queue (bounded, the oldest gives way) ─► batches
//	audit record   the state ─► pages, from the position in a file ─► the position after them
//
// Flow records are passing: they wait in memory, and what has no room is counted and lost. The audit record is state, and stays
// there until the receiver has it, so that every entry arrives at least once, in order, whatever happens to either side.
// Nothing that adds a record ever waits for a receiver.
//
// A [Receiver] has two goroutines, one for each. They share a client and know nothing of each other.
package export

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// Kind is how a receiver is spoken to.
type Kind string

// The kinds of receivers.
const (
	OTLP    Kind = "otlp"    // OTLP/HTTP: POST of an ExportLogsServiceRequest in protobuf
	Webhook Kind = "webhook" // POST of JSON, a record a line
)

// DefaultQueue is how many flow records may wait where nothing is said.
const DefaultQueue = 16384

// Config says what a receiver is and gets. Two that are equal are the same one. Paths are absolute, and "" is none.
type Config struct {
	Name         string
	Kind         Kind
	URL          string // checked by [CheckURL]; it may hold a secret
	Flows, Audit bool   // what it gets
	Queue        int    // flow records that may wait; 0: [DefaultQueue]
	Secret       string // file with the key that bodies are signed with
	Token        string // file with a bearer token
	CA           string // file with the authorities of the receiver; "": those of the system
	Cert, Key    string // files of the certificate that is shown to it
	Position     string // file with what it has of the audit record
	Agent        string // User-Agent
}

// Source is where the audit record is: a [store.Store].
type Source interface {
	Lines(ctx context.Context, from uint64) iter.Seq2[store.Line, error]
	Watch(ctx context.Context) <-chan *link.Snapshot
}

// Options are what a receiver is given by the process.
type Options struct {
	Node    string // its name, in each record
	Source  Source
	Log     *slog.Logger
	Metrics *Metrics
}

// pace is how long things take; tests are in more of a hurry.
type pace struct {
	linger      time.Duration // from the first record to a batch that isn't full
	request     time.Duration // one request, all of it
	first, most time.Duration // pauses after failures: doubled from the first to the last
	poll        time.Duration // between two looks at the audit record that nothing calls for
}

var usual = pace{linger: time.Second, request: 10 * time.Second, first: time.Second, most: 30 * time.Second, poll: time.Minute}

// Receiver sends to one receiver. It is made by [New], and runs from [Receiver.Start] to [Receiver.Close], or until another one
// takes its place with [Receiver.Succeed].
type Receiver struct {
	config  Config
	options Options
	log     *slog.Logger // which is never waited for
	lines   aside
	metrics receiverMetrics
	client  *client
	format  format
	queue   *queue
	pace    pace

	life    context.Context // of the flow records; ended by stop
	stop    context.CancelFunc
	closing chan struct{} // closed by Close: send what waits and end
	done    chan struct{} // closed when no flow record is sent any more

	mu    sync.Mutex // guards what follows
	audit *audit     // nil: not running
	over  bool       // after Close or Succeed
}

// New checks the files of a receiver. The error names the file. Nothing is opened, and nothing has to be undone.
func New(c Config, o Options) (*Receiver, error) {
	if c.Queue == 0 {
		c.Queue = DefaultQueue
	}
	client, err := newClient(c)
	if err != nil {
		return nil, err
	}
	if c.Audit {
		if _, err := readPosition(c.Position); err != nil && !isDamaged(err) {
			return nil, err
		}
		if err := canWrite(c.Position); err != nil {
			return nil, err
		}
	}
	lines := newAside(o.Log.Handler())
	r := &Receiver{
		config: c, options: o, lines: lines, log: slog.New(lines).With("receiver", c.Name), metrics: o.Metrics.of(c.Name, c.Flows, c.Audit), client: client,
		pace: usual, closing: make(chan struct{}), done: make(chan struct{}),
	}
	r.format = webhook{o.Node}
	if c.Kind == OTLP {
		r.format = otlp{o.Node}
	}
	r.queue = newQueue(c.Queue, r.metrics)
	r.life, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// Config returns what the receiver was made of.
func (r *Receiver) Config() Config { return r.config }

// Start begins to send, the audit record only if told so. It may be called once.
func (r *Receiver) Start(audit bool) {
	r.metrics = r.options.Metrics.of(r.config.Name, r.config.Flows, r.config.Audit) // an earlier one of the name may have ended since New
	r.queue.count(r.metrics)
	if r.config.Flows {
		go r.sendFlows()
	} else {
		close(r.done)
	}
	if audit {
		r.ResumeAudit()
	}
}

// Add takes records of the flow log, in order, and how many of the log are missing among them since the last time. It doesn't wait.
// The records must not be changed afterwards.
func (r *Receiver) Add(records []slog.Record, lost int64) {
	if r.config.Flows {
		r.queue.add(records, lost)
	}
}

// PauseAudit ends sending of the audit record, and waits for that: the state is another process's now.
func (r *Receiver) PauseAudit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.audit.end()
	r.audit = nil
}

// ResumeAudit sends the audit record from the position in the file, which another process may have written since.
func (r *Receiver) ResumeAudit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config.Audit && r.audit == nil && !r.over {
		r.audit = r.startAudit()
	}
}

// Succeed ends old, whose name it has, and takes over what waits there. It comes before Start.
func (r *Receiver) Succeed(old *Receiver) {
	old.halt()
	<-old.done
	if was, is := old.config, r.config; was.Flows && !is.Flows || was.Audit && !is.Audit {
		r.options.Metrics.Forget(is.Name) // what isn't sent any more isn't shown
	}
	if r.config.Flows {
		r.queue.inherit(old.queue)
	} else {
		old.queue.discard()
	}
	old.client.close()
}

// halt ends all sending at once. What isn't sent stays in the queue.
func (r *Receiver) halt() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.stop()
	r.PauseAudit()
}

// Close sends what waits of the flow records until ctx is done, or a try fails, and ends. What is left is dropped and counted; of the
// audit record it stays in the state.
func (r *Receiver) Close(ctx context.Context) {
	close(r.closing)
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.PauseAudit()
	defer context.AfterFunc(ctx, r.stop)()
	<-r.done
	r.stop()
	if n := r.queue.discard(); n > 0 {
		r.log.Warn("export: flow records that waited are dropped, the node or the receiver has ended", "records", n)
	}
	r.lines.settle(lastLines)
	r.client.close()
}
