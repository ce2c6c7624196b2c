package store

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// Describe fills in what Commit sets of an entry: its revision, its ID where the caller gave none,
// and what the deltas did. Changes, Diffs and Truncated of the caller's are replaced, Scopes are completed.
func (e *Entry) Describe(revision uint64, deltas []link.Delta) error {
	e.Revision = revision
	if e.ID == "" {
		e.ID = NewID()
	}
	e.Changes = make([]string, 0, len(deltas))
	e.Scopes = slices.Clone(e.Scopes) // the caller's own may be in use elsewhere
	size := 0
	for i, d := range deltas {
		if size < MaxChangeBytes {
			e.Changes = append(e.Changes, fmt.Sprintf("%s/%s: %s", d.Kind, d.Key, d.Verb()))
			if size += len(e.Changes[i]); size >= MaxChangeBytes && i+1 < len(deltas) {
				e.Changes = append(e.Changes, fmt.Sprintf("and %d more", len(deltas)-i-1))
			}
		}
		if sub := scope(d); sub != "" {
			e.Scopes = append(e.Scopes, sub)
		}
	}
	slices.Sort(e.Scopes)
	e.Scopes = slices.Compact(e.Scopes)
	var err error
	e.Diffs, e.Truncated, err = diffs(deltas)
	return err
}

// scope returns the subscription of the object that a delta is about, "" for none.
func scope(d link.Delta) string {
	o := d.New
	if o == nil {
		o = d.Old
	}
	switch o := o.(type) {
	case *link.Network:
		return o.ID.Subscription()
	case *link.Service:
		return o.ID.Subscription()
	case *link.Endpoint:
		return o.ID.Subscription()
	case *link.PrivateZone:
		return o.ID.Subscription()
	case *link.RecordSet:
		return o.Zone.Subscription()
	case *link.Document:
		first, _, _ := strings.Cut(string(o.ID), "/") // a resource group has fewer segments than three
		return first
	}
	return ""
}

// diffs returns the deltas as an entry holds them, and how many it doesn't.
func diffs(deltas []link.Delta) (list []Diff, left int, err error) {
	size := 0
	for d := range withoutRetired(deltas) {
		if left > 0 || len(list) == MaxDiffs {
			left++
			continue
		}
		diff := Diff{Object: fmt.Sprintf("%s/%s", d.Kind, d.Key)}
		if diff.Before, err = diffBody(d.Old); err != nil {
			return nil, 0, err
		}
		if diff.After, err = diffBody(d.New); err != nil {
			return nil, 0, err
		}
		size += len(diff.Object) + len(diff.Before) + len(diff.After)
		if size > MaxDiffBytes {
			left++
			continue
		}
		list = append(list, diff)
	}
	return list, left, nil
}

// withoutRetired yields the deltas of objects that people know.
func withoutRetired(deltas []link.Delta) iter.Seq[link.Delta] {
	return func(yield func(link.Delta) bool) {
		for _, d := range deltas {
			if d.Kind != link.KindRetired && !yield(d) {
				return
			}
		}
	}
}

// diffBody returns the JSON of an object, nil for none.
func diffBody(o link.Object) (json.RawMessage, error) {
	if o == nil {
		return nil, nil
	}
	return encodeBody(o)
}
