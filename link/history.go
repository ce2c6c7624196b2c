package link

import (
	"encoding/json"
	"fmt"
)

// history is what a state remembers of those that came before it: a document, so that it is stored, followed and in a backup as all else.
type history struct {
	// Before is how many revisions there were before the first one of this state, or more.
	Before uint64 `json:"before"`
}

const (
	historyType = "history"
	historyID   = ID("state")
)

// lost is how many revisions a state may have had after the last backup of it: at one a second those of twelve days.
const lost = 1 << 20

// Age returns a number that grows with each revision and, unlike that, doesn't begin anew with a state that a backup was restored into.
func (s *Snapshot) Age() uint64 { return s.revision + s.before() }

func (s *Snapshot) before() uint64 {
	d := s.Document(historyType, historyID)
	if d == nil {
		return 0
	}
	h, _ := d.history() // it was read when it was put
	return h.Before
}

// history reads a document of that type.
func (d *Document) history() (h history, err error) {
	if err = json.Unmarshal(d.API, &h); err != nil {
		err = fmt.Errorf("%w: document %s: %w", ErrInvalid, d.Key(), err)
	}
	return h, err
}

// succeed has the state of a restore be older than those that it was or is in place of: older than the one that the backup was made of in its given revision, and than
// the one that has been here.
func (t *tx) succeed(here *Snapshot, revision uint64) error {
	before := here.before()
	if age := revision + t.next.before(); age > here.Age() {
		before = age + lost - here.revision
	}
	if before == t.next.before() {
		return nil
	}
	body, err := json.Marshal(history{before})
	if err != nil {
		return err
	}
	return t.setDocument(t.next.Document(historyType, historyID), &Document{Type: historyType, ID: historyID, Facet: Facet{API: body}})
}
