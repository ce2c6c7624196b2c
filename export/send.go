package export

import (
	"bytes"
	"compress/gzip"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"
)

// sender is what one of the goroutines of a receiver sends with.
type sender struct {
	r    *Receiver
	what string // "flows" or "audit"
	tell complaint
	buf  bytes.Buffer
	gzip *gzip.Writer
}

// body compresses what a format has written. It is good until the next call.
func (s *sender) body(plain []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if s.buf.Reset(); s.buf.Cap() > keptBody {
		s.buf = bytes.Buffer{}
	}
	if s.gzip == nil {
		s.gzip, _ = gzip.NewWriterLevel(&s.buf, gzip.BestSpeed) // the level is one
	} else {
		s.gzip.Reset(&s.buf)
	}
	_, err = s.gzip.Write(plain)
	if closed := s.gzip.Close(); err == nil {
		err = closed
	}
	return s.buf.Bytes(), err
}

// keptBody is the room that is kept for the next body.
const keptBody = 1 << 20

// backoff is the pauses between tries: doubled from the first to the longest, and each between half and all of that, so that the nodes
// that a receiver has lost don't come back at once.
type backoff struct{ now, most, first time.Duration }

func newBackoff(p pace) *backoff { return &backoff{now: p.first, most: p.most, first: p.first} }

// next returns the next pause, at least as long as the receiver has asked for.
func (b *backoff) next(asked time.Duration) time.Duration {
	wait := b.now/2 + rand.N(b.now/2+1)
	b.now = min(2*b.now, b.most)
	if asked > 0 {
		return max(wait, asked+rand.N(b.first))
	}
	return wait
}

func (b *backoff) reset() { b.now = b.first }

// complaint tells the log of what goes wrong, once for each thing, and when it is over.
type complaint struct {
	log   *slog.Logger
	what  string
	last  string // "": all is well
	told  time.Time
	since time.Time
	n     int // records that were refused since told
}

// away says that nothing can be sent.
func (c *complaint) away(err error) {
	if c.last == "" {
		c.since = time.Now()
	}
	text := err.Error()
	if about, ok := errors.AsType[*net.OpError](err); ok {
		text = about.Op + about.Err.Error() // the port of this side is another one each time
	}
	if text != c.last {
		c.last = text
		c.log.Warn("export: "+c.what+" can't be sent, trying again", "error", err)
	}
}

// over says that they can be again.
func (c *complaint) over() {
	if c.last != "" {
		c.log.Info("export: "+c.what+" are sent again", "after", time.Since(c.since).Round(time.Millisecond))
		c.last = ""
	}
}

// refused says that the receiver doesn't want a batch: a line for the first, and one a minute for those that follow.
func (c *complaint) refused(n int, err error) {
	c.n += n
	if now := time.Now(); c.told.IsZero() || now.Sub(c.told) >= tellEvery {
		c.log.Error("export: the receiver refuses "+c.what+", and they are dropped", "error", err, "records", c.n)
		c.told, c.n = now, 0
	}
}
