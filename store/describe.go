package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

// weights are the kinds in the order in which an entry has their diffs: what says where bytes go comes
// before what may be padded at will.
var weights = []link.Kind{link.KindService, link.KindEndpoint, link.KindNetwork, link.KindZone, link.KindRecord, link.KindDocument}

// heaviest returns the first [MaxDiffs] deltas in order of weight, and how many there are beyond. Retired
// link IDs, which nobody knows, are left out.
func heaviest(deltas []link.Delta) (list []link.Delta, left int) {
	for _, kind := range weights {
		for _, d := range deltas {
			switch {
			case d.Kind != kind:
			case len(list) == MaxDiffs:
				left++
			default:
				list = append(list, d)
			}
		}
	}
	return list, left
}

// diffs returns the deltas as an entry holds them, and how many it doesn't. Nothing that fills the entry hides
// another object: first all are to fit without the API's own part of them, and those that don't are digests;
// then in what is left as many as can be are whole.
func diffs(deltas []link.Delta) (list []Diff, left int, err error) {
	chosen, left := heaviest(deltas)
	whole, size := make([]Diff, len(chosen)), 0
	for i, d := range chosen {
		object := fmt.Sprintf("%s/%s", d.Kind, d.Key)
		var lean, none Diff
		for _, side := range []struct {
			o                 link.Object
			whole, lean, none *json.RawMessage
		}{{d.Old, &whole[i].Before, &lean.Before, &none.Before}, {d.New, &whole[i].After, &lean.After, &none.After}} {
			if side.o == nil {
				continue
			}
			if *side.whole, err = encodeBody(side.o); err != nil {
				return nil, 0, err
			}
			if *side.lean, err = withoutAPI(*side.whole); err != nil {
				return nil, 0, fmt.Errorf("digest of %s: %w", object, err)
			}
			*side.none = digest(*side.whole, side.o)
		}
		whole[i].Object, lean.Object, none.Object = object, object, object
		if size+lean.size() > MaxDiffBytes {
			lean = none
		}
		size += lean.size()
		list = append(list, lean)
	}
	for i := range list {
		if more := whole[i].size() - list[i].size(); size+more <= MaxDiffBytes {
			list[i], size = whole[i], size+more
		}
	}
	return list, left, nil
}

func (d Diff) size() int { return len(d.Object) + len(d.Before) + len(d.After) }

// withoutAPI returns the body of an object with a digest in place of the API's own part, where that is longer.
func withoutAPI(body []byte) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	short := digest(fields["api"], nil)
	if len(fields["api"]) <= len(short) {
		return body, nil
	}
	fields["api"] = short
	return json.Marshal(fields)
}

// digest returns what an entry has instead of the body of an object.
func digest(body []byte, o link.Object) json.RawMessage {
	sum := sha256.Sum256(body)
	d := Digest{SHA256: hex.EncodeToString(sum[:]), Bytes: len(body)}
	if e, ok := o.(*link.Endpoint); ok {
		d.Service = e.Service
	}
	text, _ := json.Marshal(d) // strings and a number, which never fail
	return text
}
