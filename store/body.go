package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// While a cluster is upgraded, old and new nodes read each other's records. The rule that keeps this
// safe: within one [RecordFormat] a new version adds fields to an object itself, never to a part of it,
// and never a kind. An old node keeps such fields in the object's Extra and writes them back, through any
// change that it makes. What an old node must not ignore, such as a new way to refuse a flow, raises
// the format. So an unknown field within a part of an object, or an unknown kind, is of no version that
// this one can work beside: it is refused with [ErrForeign].

// upgrade is what to do about a record that is too new.
const upgrade = "it was written by a newer version: upgrade this program"

// encodeBody returns the JSON of an object, with the fields that an earlier decodeBody kept.
func encodeBody(o link.Object) ([]byte, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s/%s: %w", o.Kind(), o.Key(), err)
	}
	kept := extra(o)
	if kept == nil || len(*kept) == 0 {
		return body, nil
	}
	known := knownFields(reflect.TypeOf(o).Elem())
	body = body[:len(body)-1] // the closing brace; an object has at least its ID, so there is a field before
	for _, name := range slices.Sorted(maps.Keys(*kept)) {
		if isKnown(known, name) {
			continue // its place is taken
		}
		field, err := json.Marshal(map[string]json.RawMessage{name: (*kept)[name]})
		if err != nil {
			return nil, fmt.Errorf("encode %s/%s: field %q of a newer version: %w", o.Kind(), o.Key(), name, err)
		}
		body = append(append(body, ','), field[1:len(field)-1]...)
	}
	return append(body, '}'), nil
}

// decodeBody is the reverse of encodeBody. The error wraps [ErrForeign] or [ErrDamaged].
func decodeBody(body []byte, o link.Object) error {
	err := unmarshalStrict(body, o)
	kept := extra(o)
	if err == nil || errors.Is(err, ErrDamaged) || kept == nil {
		return err
	}
	// Most likely it has a field that we don't know. The strict decoder comes first as it does
	// without the map.
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return err
	}
	known, unknown := knownFields(reflect.TypeOf(o).Elem()), map[string]json.RawMessage{}
	for name, value := range fields {
		if !isKnown(known, name) {
			unknown[name] = value
			delete(fields, name)
		}
	}
	if len(unknown) == 0 {
		return err
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	reflect.ValueOf(o).Elem().SetZero() // what the first try left
	if err := unmarshalStrict(rest, o); err != nil {
		return err
	}
	*kept = unknown
	return nil
}

// extra returns where an object keeps the fields that we don't know; nil: it can't.
func extra(o link.Object) *map[string]json.RawMessage {
	switch o := o.(type) {
	case *link.Network:
		return &o.Extra
	case *link.Service:
		return &o.Extra
	case *link.Endpoint:
		return &o.Extra
	case *link.Retired:
		return &o.Extra
	case *link.PrivateZone:
		return &o.Extra
	case *link.RecordSet:
		return &o.Extra
	case *link.Document:
		return &o.Extra
	}
	return nil
}

// knownFields returns the names that the fields of a struct have in JSON, those of embedded structs included.
func knownFields(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, knownFields(f.Type)...)
		case name != "-" && name != "":
			names = append(names, name)
		}
	}
	return names
}

// isKnown compares as encoding/json does, which takes a field in other letters for the same.
func isKnown(known []string, name string) bool {
	return slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) })
}

// unmarshalStrict decodes exactly one JSON value that has no unknown field.
func unmarshalStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if strings.HasPrefix(err.Error(), "json: unknown field") {
			return fmt.Errorf("%w: %w: %s", ErrForeign, err, upgrade)
		}
		return fmt.Errorf("%w: its body isn't one that this program writes: %w", ErrForeign, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes after its body", ErrDamaged)
	}
	return nil
}
