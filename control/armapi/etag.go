package armapi

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/postern-link/postern/control"
)

// An ETag is a function of what a resource looks like, so that nothing is stored for it: it changes when
// the rendered resource does, whatever led to that.
type (
	// weakTag is the "etag" of resources of Microsoft.Network: W/"<guid>".
	weakTag string
	// plainTag is the "etag" of private DNS: a GUID.
	plainTag string
)

var (
	weakType  = reflect.TypeFor[weakTag]()
	plainType = reflect.TypeFor[plainTag]()
)

// seal fills the tags of a rendered resource and of the resources in it, and returns it. v is a pointer to
// a struct; tags are fields of type [weakTag] or [plainTag], with "omitempty".
func seal[T any](v *T) *T {
	var all []sealed
	collect(reflect.ValueOf(v), &all)
	for _, s := range all {
		s.tag.SetString("")
	}
	sums := make([]string, len(all))
	for i, s := range all {
		sums[i] = fingerprint(s.owner.Addr().Interface())
	}
	for i, s := range all {
		if s.tag.Type() == weakType {
			sums[i] = `W/"` + sums[i] + `"`
		}
		s.tag.SetString(sums[i])
	}
	return v
}

// sealed is a tag and the struct that it is about.
type sealed struct{ owner, tag reflect.Value }

// collect finds the tags in v and below.
func collect(v reflect.Value, all *[]sealed) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			collect(v.Elem(), all)
		}
	case reflect.Slice:
		if k := v.Type().Elem().Kind(); k == reflect.Struct || k == reflect.Pointer || k == reflect.Interface {
			for i := range v.Len() {
				collect(v.Index(i), all)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			switch {
			case !v.Type().Field(i).IsExported() && !v.Type().Field(i).Anonymous:
			case f.Type() == weakType || f.Type() == plainType:
				if f.CanSet() {
					*all = append(*all, sealed{v, f})
				}
			default:
				collect(f, all)
			}
		}
	}
}

// fingerprint returns a GUID that stands for the JSON of v.
func fingerprint(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "" // the answer will fail in the same way, and be logged
	}
	sum := sha256.Sum256(b)
	return guid([16]byte(sum[:16]))
}

// tagOf returns the tag of a sealed resource, "" for other values.
func tagOf(body any) string {
	v := reflect.ValueOf(body)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return ""
	}
	for i := range v.NumField() {
		if t := v.Field(i).Type(); t == weakType || t == plainType {
			return v.Field(i).String()
		}
	}
	return ""
}

// precondition judges If-Match and If-None-Match against a resource as it is, sealed; nil where there is
// none. The error wraps [control.ErrPrecondition]. It belongs into the edit of an operation, where the
// state is the one that is committed against.
func (r *request) precondition(current any) error {
	there := current != nil && !reflect.ValueOf(current).IsNil()
	tag := ""
	if there {
		tag = bare(tagOf(current))
	}
	if want, ok := condition(r.Header, "If-Match"); ok && !(there && want(tag)) {
		return fmt.Errorf("%w: the resource isn't as If-Match says", control.ErrPrecondition)
	}
	if unwanted, ok := condition(r.Header, "If-None-Match"); ok && there && unwanted(tag) {
		return fmt.Errorf("%w: the resource is as If-None-Match says", control.ErrPrecondition)
	}
	return nil
}

// condition returns whether a tag is one of those in a header; ok is false where there is no such header.
func condition(h http.Header, name string) (has func(tag string) bool, ok bool) {
	all := h.Values(name)
	if len(all) == 0 {
		return nil, false
	}
	return func(tag string) bool {
		for t := range strings.SplitSeq(strings.Join(all, ","), ",") {
			if t = strings.TrimSpace(t); t == "*" || t != "" && bare(t) == tag {
				return true
			}
		}
		return false
	}, true
}

// bare takes the W/ and the quotes off a tag: clients send them with and without.
func bare(tag string) string {
	return strings.ToLower(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`))
}
