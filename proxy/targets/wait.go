package targets

import "time"

// Wait is a flow that waits for a place.
type Wait struct {
	set        *Set
	flow       Flow
	granted    func(*Target)
	prev, next *Wait
	waits      bool
}

// line are those who wait, in order of their coming. The zero line is empty.
type line struct {
	first, last *Wait
	len         int
}

// passedOver bounds how many who can't have a place that came free are passed over for those behind them.
const passedOver = 64

// Wait is Take for a flow that got ErrFull: it may have a place by now, else it waits in line, and granted is told of
// its place when it has one; or of nil where no target is left for it. That is within another call of the set, which
// granted mustn't call. At most max_waiting flows wait: those beyond get ErrLine. Who waits must call [Wait.Leave].
func (s *Set) Wait(now time.Time, f Flow, granted func(*Target)) (w *Wait, t *Target, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve(now)
	t, _, err = s.take(now, f)
	switch {
	case err != ErrFull:
		return nil, t, err
	case s.line.len >= s.service.MaxWaiting:
		return nil, nil, ErrLine
	}
	w = &Wait{set: s, flow: f, granted: granted}
	s.line.add(w)
	return w, nil, nil
}

// Leave ends the waiting. It reports whether the flow was still in line: else granted has returned, and the place, if
// it was one, must be given back. Again, it reports false.
func (w *Wait) Leave() bool {
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	if !w.waits {
		return false
	}
	w.set.line.remove(w)
	return true
}

// serve gives places that are free to those who wait, in order. Who can't have any of them is passed over: it has
// tried those targets.
func (s *Set) serve(now time.Time) {
	passed := 0
	for w := s.line.first; w != nil && passed < passedOver; {
		next := w.next
		t, _, err := s.take(now, w.flow)
		switch {
		case err != ErrFull:
			s.line.remove(w)
			w.granted(t)
		case len(w.flow.Tried) == 0:
			return // then there is none for anybody
		default:
			passed++
		}
		w = next
	}
}

func (l *line) add(w *Wait) {
	w.waits, w.prev = true, l.last
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.len++
}

func (l *line) remove(w *Wait) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.waits, w.prev, w.next = false, nil, nil
	l.len--
}
