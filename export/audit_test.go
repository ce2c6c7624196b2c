package export

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/postern-link/postern/store"
)

// The process ends between the receiver's answer and the file: entries come again, and none is missing.
func TestKilledBeforePosition(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w, s, taken, done := newWorld(t), newSIEM(t), make(chan struct{}), make(chan struct{})
			last := w.commit(10)
			s.answers(func(_ http.ResponseWriter, r *http.Request, body []byte) bool {
				s.answer.Store(nil)
				s.take(r, body)
				close(taken)
				<-done // its answer is never read
				return false
			})
			c := w.config(s.up(), kind)
			r := w.start(c)
			<-taken
			r.PauseAudit()
			close(done)
			if _, err := os.Stat(c.Position); err == nil {
				t.Fatal("a position was kept of what nobody knows to be taken")
			}
			r.ResumeAudit()
			eventually(t, "entries come again", func() bool { _, audit := s.has(); return audit == 2*int(last) && s.verify() == last })
		})
	}
}

// Another process goes on where this one was.
func TestRestart(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t).up()
	c := w.config(s, OTLP)
	last := w.commit(10)
	r := w.start(c)
	at := func(revision uint64) func() bool {
		return func() bool { p, err := readPosition(c.Position); return err == nil && p.revision == revision }
	}
	eventually(t, "the position is kept", at(last))
	end(r, patience)
	last = w.commit(600) // more than a page
	w.start(c)
	eventually(t, "the position is kept", at(last))
	if _, audit := s.has(); audit != int(last) || s.verify() != last {
		t.Errorf("%d entries have come of %d", audit, last)
	}
}

// A position that isn't whole counts as none; it is told.
func TestDamagedPosition(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t).up()
	c := w.config(s, Webhook)
	last := w.commit(10)
	r := w.start(c)
	eventually(t, "the position is kept", func() bool { p, _ := readPosition(c.Position); return p.revision == last })
	end(r, patience)
	text, err := os.ReadFile(c.Position)
	if err != nil {
		t.Fatal(err)
	}
	text[len(positionWord)+1] ^= 1 // of the revision
	if err := os.WriteFile(c.Position, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(c)
	eventually(t, "all comes again", func() bool { _, audit := s.has(); return audit == 2*int(last) && s.verify() == last })
	if !strings.Contains(w.log.String(), "position is damaged") {
		t.Error(w.log)
	}
}

// A position that isn't of this state is told, and nothing is guessed: not one beyond the record, nor one of another record of the same length.
func TestStateReplaced(t *testing.T) {
	for name, entries := range map[string]int{"shorter": 5, "as long": 10, "longer": 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s := newWorld(t), newSIEM(t).up()
			c := w.config(s, OTLP)
			last := w.commit(10)
			r := w.start(c)
			eventually(t, "all has come", func() bool { p, _ := readPosition(c.Position); return p.revision == last })
			end(r, patience)
			w.store = w.open("another.db")
			other := w.commit(entries)
			w.start(c)
			eventually(t, "it is told", func() bool { return strings.Contains(w.log.String(), errReplaced.Error()) })
			s.mu.Lock()
			if len(s.audit) != int(last) {
				t.Errorf("%d entries have come", len(s.audit))
			}
			s.audit = nil
			s.mu.Unlock()
			// The operator decides.
			if err := os.Remove(c.Position); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the other record comes from its first entry", func() bool { return s.verify() == other })
		})
	}
}

// A file that can't be written costs entries that come twice after a restart, and nothing else.
func TestPositionCantBeWritten(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t), newSIEM(t).up()
	c := w.config(s, OTLP)
	if err := os.Mkdir(c.Position+".new", 0o700); err != nil { // root may write anywhere else
		t.Fatal(err)
	}
	r := w.start(c)
	first := w.commit(3)
	eventually(t, "entries come", func() bool { return s.verify() == first })
	last := w.commit(3)
	eventually(t, "and later ones, once", func() bool { _, audit := s.has(); return audit == int(last) && s.verify() == last })
	eventually(t, "it is told", func() bool { return strings.Contains(w.log.String(), "after a restart entries are sent again") })
	end(r, patience)
	w.start(c)
	eventually(t, "they come again", func() bool { _, audit := s.has(); return audit == 2*int(last) && s.verify() == last })
}

// Every cut and every flipped bit of the file is found.
func TestPositionFile(t *testing.T) {
	t.Parallel()
	p := position{revision: 1234567, chain: store.Chain{1, 2, 3}}
	whole := p.encode()
	if got, err := parsePosition(whole); err != nil || got != p {
		t.Fatalf("%v, %v", got, err)
	}
	for n := range whole {
		if _, err := parsePosition(whole[:n]); !isDamaged(err) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for bit := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := parsePosition(b); !isDamaged(err) {
			t.Errorf("bit %d: %v: %q", bit, err, b)
		}
	}
	path := t.TempDir() + "/position"
	if got, err := readPosition(path); err != nil || got != (position{}) {
		t.Errorf("no file: %v, %v", got, err)
	}
	for range 2 {
		if err := p.write(path); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := readPosition(path); err != nil || got != p {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := readPosition(path + "/nowhere/file"); err == nil {
		t.Error("a directory that isn't there is no error")
	}
}

func FuzzPosition(f *testing.F) {
	f.Add(position{}.encode())
	f.Add(position{revision: 1<<64 - 1, chain: store.Chain{255}}.encode())
	f.Add([]byte(positionWord + " 01  \n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := parsePosition(text); err == nil && !bytes.Equal(p.encode(), text) {
			t.Errorf("%q is taken for %v", text, p)
		}
	})
}

func FuzzPartialSuccess(f *testing.F) {
	f.Add([]byte("\x0a\x02\x08\x02"))
	f.Add([]byte("\x0a\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("\x12\x00\x0a\x04\x12\x02hi"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if n := (otlp{}).rejected(answer); n < 0 || n > batchRecords {
			t.Errorf("%d", n)
		}
	})
}
