package link

import (
	"fmt"
	"iter"
	"strings"
)

// PutDocument creates a document or replaces the one of its type and ID.
type PutDocument struct{ Document Document }

// DeleteDocument deletes a document.
type DeleteDocument struct {
	Type string
	ID   ID
}

// MaxDocument bounds what a document holds, in bytes: it is compared, stored and described in the audit with
// each change.
const MaxDocument = 64 << 10

func (c PutDocument) apply(t *tx) error {
	d := c.Document
	if n := len(d.API); n > MaxDocument {
		return about(&d, d.ID, Origin{}, fmt.Errorf("%w: a %s of %d bytes, %d are allowed", ErrInvalid, clip(d.Type), n, MaxDocument))
	}
	if err := t.setDocument(t.next.Document(d.Type, d.ID), &d); err != nil {
		return about(&d, d.ID, Origin{}, err)
	}
	return nil
}

func (c DeleteDocument) apply(t *tx) error {
	d := t.next.Document(c.Type, c.ID)
	if d == nil {
		return about(&Document{}, c.ID, Origin{}, fmt.Errorf("%w: %s", ErrNotFound, c.Type))
	}
	return t.setDocument(d, nil)
}

// setDocument replaces old, nil for none, by d, nil for none.
func (t *tx) setDocument(old, d *Document) error {
	all := &t.next.private.documents
	if old != nil {
		touch(t, KindDocument, old.Key(), old)
		all.drop([]byte(old.Key()))
		t.countDocument(old, -1)
	}
	if d == nil {
		return nil
	}
	if old != nil {
		d.keep(old.Facet)
	}
	if d.Type == "" || strings.Trim(d.Type, "abcdefghijklmnopqrstuvwxyz") != "" {
		return fmt.Errorf("%w: type %q of a document", ErrInvalid, clip(d.Type))
	}
	if err := checkID(d.ID); err != nil {
		return err
	}
	if d.Type == historyType {
		if _, err := d.history(); err != nil {
			return err
		}
	}
	touch(t, KindDocument, d.Key(), old)
	all.put([]byte(d.Key()), d)
	t.countDocument(d, 1)
	return nil
}

func (t *tx) countDocument(d *Document, n int) {
	first, _, _ := strings.Cut(string(d.ID), "/")
	add(&t.next.tallies, tallyKey('d', d.Type, first), n)
}

// Document returns the document of a type and ID, nil where there is none.
func (s *Snapshot) Document(typ string, id ID) *Document {
	d, _ := s.private.documents.get([]byte(DocumentKey(typ, id)))
	return d
}

// Documents yields the documents of a type whose IDs begin with a prefix, in order of their IDs.
func (s *Snapshot) Documents(typ, prefix string) iter.Seq[*Document] {
	return s.private.documents.values([]byte(DocumentKey(typ, ID(prefix))))
}

// CountDocuments returns the number of documents of a type whose first segment is the subscription.
func (s *Snapshot) CountDocuments(typ, subscription string) int {
	return counter(&s.tallies, tallyKey('d', typ, subscription))
}
