package store

import (
	"bytes"
	"runtime"
	"sync"

	"github.com/postern-link/postern/link"
)

// Decoder decodes many records on all processors: what the start of a node with 100,000 endpoints waits
// for. The zero Decoder is ready. Add and Finish are for one goroutine.
type Decoder struct {
	batch   []rawRecord
	running chan struct{} // a place for each batch being decoded
	group   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	objects [][]link.Object
	failed  int // the batch of err
	err     error
}

type rawRecord struct {
	kind link.Kind
	key  string
	rec  []byte
}

const decoderBatch = 512

// Add takes a record, which it copies: see [DecodeRecord].
func (d *Decoder) Add(kind link.Kind, key string, rec []byte) {
	d.batch = append(d.batch, rawRecord{kind, key, bytes.Clone(rec)})
	if len(d.batch) == decoderBatch {
		d.flush()
	}
}

// flush begins to decode the batch, when a processor is free.
func (d *Decoder) flush() {
	if d.running == nil {
		d.running = make(chan struct{}, runtime.GOMAXPROCS(0))
	}
	batch := d.batch
	d.batch = nil
	d.mu.Lock()
	n := len(d.objects)
	d.objects = append(d.objects, nil)
	d.mu.Unlock()
	d.running <- struct{}{}
	d.group.Go(func() {
		d.decode(n, batch)
		<-d.running
	})
}

func (d *Decoder) decode(n int, batch []rawRecord) {
	objects := make([]link.Object, 0, len(batch))
	for _, r := range batch {
		o, err := DecodeRecord(r.kind, r.key, r.rec)
		if err != nil {
			d.mu.Lock()
			if d.err == nil || n < d.failed {
				d.err, d.failed = err, n
			}
			d.mu.Unlock()
			return
		}
		objects = append(objects, o)
	}
	d.mu.Lock()
	d.objects[n] = objects
	d.mu.Unlock()
}

// Finish returns the objects in the order in which their records were added, or the error of the first
// record that has one. Whoever has added must call it, so that no goroutine is left.
func (d *Decoder) Finish() ([]link.Object, error) {
	if len(d.batch) > 0 {
		d.flush()
	}
	d.group.Wait()
	if d.err != nil {
		return nil, d.err
	}
	var all []link.Object
	for _, objects := range d.objects {
		all = append(all, objects...)
	}
	return all, nil
}
