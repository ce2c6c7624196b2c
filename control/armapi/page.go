package armapi

import (
	"encoding/base64"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// pageSize is how many values a page of a list has at most.
const pageSize = 500

// page answers with one page of the values that seq yields in ascending order of key, each rendered. The
// next page begins behind the last key of this one, whatever has come or gone meanwhile: no value that
// stays is missed or seen twice.
func page[T any](r *request, seq iter.Seq[T], key func(T) string, render func(T) (any, error)) (reply, error) {
	size, err := r.top()
	if err != nil {
		return reply{}, err
	}
	after, more, err := r.skipToken()
	if err != nil {
		return reply{}, err
	}
	body, last := listBody{Value: []any{}}, ""
	for v := range seq {
		k := key(v)
		if more && k <= after {
			continue
		}
		if len(body.Value) == size {
			body.NextLink = r.nextLink(last)
			break
		}
		rendered, err := render(v)
		if err != nil {
			return reply{}, err
		}
		body.Value, last = append(body.Value, rendered), k
	}
	return ok(body), nil
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

// skipToken returns the key that the page is to begin behind; more is false for the first page.
func (r *request) skipToken() (after string, more bool, err error) {
	s := r.query("$skiptoken")
	if s == "" {
		return "", false, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", false, fail(http.StatusBadRequest, "InvalidQueryParameter", "The $skiptoken isn't one of ours.")
	}
	return string(b), true, nil
}

// nextLink returns the URL of the page behind a key: that of the request, as its caller can reach it.
func (r *request) nextLink(key string) string {
	q := url.Values{}
	for k, v := range r.URL.Query() {
		if !strings.EqualFold(k, "$skiptoken") {
			q[k] = v
		}
	}
	q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(key)))
	return r.href(r.api.below(r.URL.EscapedPath())) + "?" + q.Encode()
}
