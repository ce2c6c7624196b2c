package armapi

import (
	"cmp"
	"encoding/base64"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/postern-link/postern/link"
)

// pageSize is how many values a page of a list has at most.
const pageSize = 500

// source yields the values of a list whose keys are greater than after, in ascending order of key; with ""
// all of them. Its cost must be that of what is taken from it, wherever in the list that is.
type source[T any] func(after string) iter.Seq[T]

// page answers with one page of a list, each value rendered. The next page begins behind the last key of
// this one, whatever has come or gone meanwhile: no value that stays is missed or seen twice.
func page[T any](r *request, from source[T], key func(T) string, render func(T) (any, error)) (reply, error) {
	size, err := r.top()
	if err != nil {
		return reply{}, err
	}
	after, err := r.skipToken()
	if err != nil {
		return reply{}, err
	}
	body, last := listBody{Value: []any{}}, ""
	for v := range from(after) {
		if len(body.Value) == size {
			body.NextLink = r.nextLink(last)
			break
		}
		rendered, err := render(v)
		if err != nil {
			return reply{}, err
		}
		body.Value, last = append(body.Value, rendered), key(v)
	}
	return ok(body), nil
}

// held is the source of a list that is in memory, sorted by key.
func held[T any](all []T, key func(T) string) source[T] {
	return func(after string) iter.Seq[T] {
		return slices.Values(all[sort.Search(len(all), func(i int) bool { return key(all[i]) > after }):])
	}
}

// seek is how a snapshot yields objects whose IDs begin with a prefix and come behind another, such as
// [link.Snapshot.EndpointsFrom].
type seek[T any] func(prefix string, after link.ID) iter.Seq[T]

// objects is the source of the objects of a subscription or, unless group is "", of one of its groups, by
// ID. Those of the Corefile come first, in the subscription that shows them.
func objects[T any](a *API, sub, group string, from seek[T], id func(T) link.ID) source[T] {
	return func(after string) iter.Seq[T] {
		return func(yield func(T) bool) {
			at := link.ID(after)
			if a.isCorefile(sub, cmp.Or(group, corefileGroup)) && !strings.Contains(after, "/") {
				for o := range declared(from, id, at) {
					if !yield(o) {
						return
					}
				}
				at = ""
			}
			prefix := sub + "/"
			if group != "" {
				prefix += strings.ToLower(group) + "/"
			}
			for o := range from(prefix, at) {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// declared yields the objects of the Corefile behind an ID: those whose IDs have one segment. They stand
// among the subscriptions, each of which is passed over in one step.
func declared[T any](from seek[T], id func(T) link.ID, after link.ID) iter.Seq[T] {
	return func(yield func(T) bool) {
		for passed := true; passed; {
			passed = false
			for o := range from("", after) {
				after = id(o)
				if sub, _, made := strings.Cut(string(after), "/"); made {
					after, passed = link.ID(sub+"/\xff"), true // no ID has this byte
					break
				}
				if !yield(o) {
					return
				}
			}
		}
	}
}

// startOf returns where objects of a kind begin on a page of a list by kind and ID, whose keys are
// "kind/ID": behind which ID. ok is false where the page begins behind all of the kind.
func startOf(after string, kind link.Kind) (id string, ok bool) {
	at, id, _ := strings.Cut(after, "/")
	switch strings.Compare(at, string(kind)) {
	case -1:
		return "", true
	case 0:
		return id, true
	}
	return "", false
}

// top returns how many values the caller wants on a page.
func (r *request) top() (int, error) {
	s := r.query("$top")
	if s == "" {
		return pageSize, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, fail(http.StatusBadRequest, "InvalidQueryParameter", "$top must be a number from 1 on, not %s.", quote(s))
	}
	return min(int(n), pageSize), nil
}

// skipToken returns the key that the page is to begin behind, "" for the first page.
func (r *request) skipToken() (after string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(r.query("$skiptoken"))
	if err != nil {
		return "", fail(http.StatusBadRequest, "InvalidQueryParameter", "The $skiptoken isn't one of ours.")
	}
	return string(b), nil
}

// nextLink returns the URL of the page behind a key: that of the request, as its caller can reach it.
func (r *request) nextLink(key string) string {
	q := url.Values{}
	for k, v := range r.URL.Query() {
		if !strings.EqualFold(k, "$skiptoken") {
			q[k] = v
		}
	}
	q.Set("$skiptoken", skipTokenOf(key))
	return r.href(r.api.below(r.URL.EscapedPath())) + "?" + q.Encode()
}

// skipTokenOf returns the token of the page behind a key.
func skipTokenOf(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
