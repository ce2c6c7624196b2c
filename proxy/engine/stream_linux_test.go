package engine

import "testing"

// A tick that comes after the end of an engine wakes nobody: the descriptor may be somebody else's by then.
func TestTickAfterClose(t *testing.T) {
	e, err := newEpoll()
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	l := e.(*epollEngine).loops[0]
	if l.wake(); l.woken {
		t.Error("the eventfd was written")
	}
}
