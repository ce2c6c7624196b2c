package armapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/link"
)

// request is one request on its way through the API.
type request struct {
	*http.Request
	api    *API
	caller control.Caller
	id128  string // the request's own ID, a GUID

	operation *operation // nil until it is found
	names     []string   // of the parameters
	values    []string
	snapshot  *link.Snapshot // see view
}

// answer takes a request through the steps that the package comment tells.
func (a *API) answer(r *request) reply {
	rep, err := a.respond(r)
	if err != nil {
		return failure(problem(r, err))
	}
	return rep
}

func (a *API) respond(r *request) (rep reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			rep, err = reply{}, a.panicked(r, p)
		}
	}()
	if err := a.hosts.check(r.Request); err != nil {
		return reply{}, err
	}
	path, ok := segments(a.below(r.URL.EscapedPath()))
	var found *route
	var allow []string
	if ok {
		found, r.values, allow = a.router.find(r.Method, path)
	}
	if found == nil || !found.open {
		if err := r.authenticate(); err != nil {
			return reply{}, err
		}
	}
	if found == nil {
		return reply{}, unrouted(path, allow)
	}
	r.operation, r.names = &found.operation, found.names
	if !found.open {
		if rep, err, done := r.admit(); done || err != nil {
			return rep, err
		}
	}
	return found.handle(r)
}

// below cuts the path of the configured URL off.
func (a *API) below(path string) string {
	if a.URL == nil {
		return path
	}
	prefix := strings.TrimRight(a.URL.EscapedPath(), "/")
	if len(path) >= len(prefix) && strings.EqualFold(path[:len(prefix)], prefix) && (len(path) == len(prefix) || path[len(prefix)] == '/') {
		return path[len(prefix):]
	}
	return path
}

// authenticate sets the caller.
func (r *request) authenticate() error {
	source := sourceOf(r.RemoteAddr)
	c := identity.Credential{Bearer: bearer(r.Header), From: source}
	if r.TLS != nil {
		c.Chains = r.TLS.VerifiedChains
	}
	caller, err := r.api.Directory.Authenticate(r.Context(), c)
	if errors.Is(err, identity.ErrUnauthenticated) {
		return r.api.refuseSignIn(r, source)
	}
	if err != nil {
		return err
	}
	if caller.From == "" {
		caller.From = source
	}
	r.caller = caller
	return nil
}

// bearer returns the token of the Authorization header. One that isn't of this form, or two of them,
// give what no directory takes.
func bearer(h http.Header) string {
	all := h.Values("Authorization")
	if len(all) == 0 {
		return ""
	}
	scheme, token, _ := strings.Cut(all[0], " ")
	token = strings.Trim(token, " ")
	if len(all) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "malformed"
	}
	return token
}

// sourceOf returns the address of a client without its port.
func sourceOf(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	return ap.Addr().Unmap().WithZone("").String()
}

// admit judges what all operations of a caller have in common. done: the answer is known already.
func (r *request) admit() (rep reply, err error, done bool) {
	if wait, ok := r.api.callers.take(r.caller.TenantID+"/"+r.caller.Name, r.api.Clock()); !ok {
		return reply{}, tooMany(wait), true
	}
	if err := r.oneValueEach(); err != nil {
		return reply{}, err, true
	}
	if err := r.version(); err != nil {
		return reply{}, err, true
	}
	if err := r.mayBeDry(); err != nil {
		return reply{}, err, true
	}
	sub := r.subscription()
	if sub == "" {
		return reply{}, nil, false
	}
	if r.snapshot, err = r.api.Control.View(r.caller, sub); err != nil {
		if r.Method != http.MethodGet && r.Method != http.MethodHead { // who only looks changes nothing
			r.api.Control.Refused(r.Context(), r.op(), "request."+strings.ToLower(r.Method), "path"+clean(r.URL.Path, 512), sub, err)
		}
		return reply{}, err, true
	}
	if r.path("group") == "" || !strings.Contains(r.operation.pattern, "/providers/") {
		return reply{}, nil, false
	}
	err = r.inGroup(r.snapshot)
	if err != nil && r.Method == http.MethodDelete {
		return deleted(control.Result{}), nil, true // what isn't there is deleted, and clients fail on 404
	}
	return reply{}, err, err != nil
}

var versionForm = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(-[A-Za-z]{1,16})?$`)

// version wants an API version and takes any: one behaviour serves all that clients send.
func (r *request) version() error {
	v := r.query("api-version")
	if v == "" {
		return fail(http.StatusBadRequest, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	if !versionForm.MatchString(v) {
		return fail(http.StatusBadRequest, "InvalidApiVersionParameter", "The api-version %s is invalid: a date such as 2025-05-01 is expected.", quote(v))
	}
	return nil
}

// oneValueEach refuses a query parameter that is given twice and not alike: which of them counts, nobody could say.
func (r *request) oneValueEach() error {
	given := map[string]string{}
	for k, values := range r.URL.Query() {
		for _, v := range values {
			if before, twice := given[strings.ToLower(k)]; twice && before != v {
				return fail(http.StatusBadRequest, "InvalidQueryParameter", "The query parameter %s is given more than once, with different values.", quote(strings.ToLower(k)))
			}
			given[strings.ToLower(k)] = v
		}
	}
	return nil
}

// query returns the first value of a query parameter, whose name is written in any letter case.
func (r *request) query(name string) string {
	for k, v := range r.URL.Query() {
		if strings.EqualFold(k, name) && len(v) > 0 {
			return v[0]
		}
	}
	return ""
}

// path returns the segment of a parameter as it was sent, "" where the pattern has no such parameter.
func (r *request) path(name string) string {
	if i := slices.Index(r.names, name); i >= 0 {
		return r.values[i]
	}
	return ""
}

// subscription returns the subscription in the path, in lower case.
func (r *request) subscription() string { return strings.ToLower(r.path("subscription")) }

// view returns the newest snapshot as of when the request was admitted. The caller has a role in the
// subscription of the path.
func (r *request) view() *link.Snapshot { return r.snapshot }

// id returns the ID of the object that subscription, group and a named segment of the path say. The
// error is 400 where the segment is no valid name.
func (r *request) id(name string) (link.ID, error) {
	return r.api.objectID(r.subscription(), r.path("group"), r.path(name))
}

// op returns what operations of package control want to know. The words for the audit come in a header.
func (r *request) op() control.Op {
	return control.Op{Caller: r.caller, Reason: clean(r.Header.Get("Postern-Reason"), 1024), DryRun: r.dry()}
}

// clean bounds what a caller says and takes control characters out.
func clean(s string, most int) string {
	s = strings.ToValidUTF8(s[:min(len(s), most)], "")
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}

// base returns where the caller reaches the API, without a slash at the end.
func (r *request) base() string {
	if u := r.api.URL; u != nil {
		return strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/")
	}
	return "https://" + r.Host
}

// href returns the absolute URL of a path of the API.
func (r *request) href(path string) string { return r.base() + path }

// requestID returns a random GUID.
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return guid(b)
}

// guid writes 16 bytes as a GUID.
func guid(b [16]byte) string {
	x := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", x[:8], x[8:12], x[12:16], x[16:20], x[20:])
}
