package armapi

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// problems say which answer an error of the packages below is. The first that matches counts. A message
// of "" is the error's own text.
var problems = []struct {
	err     error
	status  int
	code    string
	message string
}{
	{control.ErrForbidden, http.StatusForbidden, "AuthorizationFailed", "The client does not have authorization to perform this action over the scope of the resource."},
	{control.ErrLinkedForbidden, http.StatusForbidden, "LinkedAuthorizationFailed", "The client has permission to perform this action, but not the action that it needs on a linked resource."},
	{control.ErrNoService, http.StatusBadRequest, "InvalidPrivateLinkServiceId", "The private link service was not found, or is not visible to the private endpoint."},
	{control.ErrReference, http.StatusBadRequest, "InvalidResourceReference", ""},
	{control.ErrPrecondition, http.StatusPreconditionFailed, "PreconditionFailed", ""},
	{link.ErrStale, http.StatusPreconditionFailed, "PreconditionFailed", ""},
	{control.ErrLimit, http.StatusBadRequest, "LimitReached", ""},
	{control.ErrInUse, http.StatusBadRequest, "InUseResourceCannotBeDeleted", ""},
	{control.ErrUnproven, http.StatusBadRequest, "DomainVerificationRequired", ""},
	{control.ErrEgress, http.StatusForbidden, "RequestDisallowedByPolicy", ""},
	{link.ErrExhausted, http.StatusBadRequest, "SubnetIsFull", ""},
	{link.ErrInvalid, http.StatusBadRequest, "InvalidRequestFormat", ""},
	{link.ErrNotFound, http.StatusNotFound, "ResourceNotFound", ""},
}

// problem is the one place that shows an error to a caller.
func problem(r *request, err error) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*control.OftenError](err); ok {
		return tooMany(e.Wait)
	}
	switch {
	case errors.Is(err, control.ErrNoSubscription):
		return &apiError{status: http.StatusNotFound, code: "SubscriptionNotFound", message: "The subscription " + quote(r.path("subscription")) + " could not be found."}
	case errors.Is(err, link.ErrConflict):
		return conflict(r, err)
	case errors.Is(err, control.ErrUnavailable), errors.Is(err, identity.ErrUnavailable), errors.Is(err, store.ErrConflict),
		errors.Is(err, store.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		r.api.Log.Warn("a request could not be served", "operation", r.operation.label(), "request", r.id128, "err", err)
		return unavailable("The request can't be served now. Nothing was changed.")
	case errors.Is(err, store.ErrUnknownOutcome):
		r.api.Log.Warn("the outcome of a request is unknown", "operation", r.operation.label(), "request", r.id128, "err", err)
		return unavailable("It is not known whether the change was made. Read the resource before you try again.")
	}
	for _, p := range problems {
		if !errors.Is(err, p.err) {
			continue
		}
		message := p.message
		if message == "" {
			message = sentence(err.Error())
		}
		return &apiError{status: p.status, code: code(err, p.code), message: message}
	}
	r.api.Log.Error("an error of no known kind", "operation", r.operation.label(), "request", r.id128, "err", err)
	return internalError()
}

// code gives the errors with a figure a code that says which: "endpoints of a network" is EndpointsOfANetworkLimitReached.
func code(err error, otherwise string) string {
	e, ok := errors.AsType[*control.LimitError](err)
	if !ok {
		return otherwise
	}
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(e.What, func(c rune) bool { return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String() + otherwise
}

// conflict is the answer where another object, or the declaration in a Corefile, stands against a change.
// The operator gets the whole text, with the file and the objects of others; the others get it where all that it names is
// theirs, and else learn no more than that it is so.
func conflict(r *request, err error) *apiError {
	e := &apiError{status: http.StatusConflict, code: "Conflict", message: "The request conflicts with another resource, or with the state of this one."}
	if o, ok := errors.AsType[*link.ObjectError](err); ok && o.Origin.Declaration != "" {
		e.code, e.message = "ScopeLocked", "The resource is declared by the operator and can't be changed here."
	}
	switch o, ok := errors.AsType[*link.ObjectError](err); {
	case r.caller.Operator:
		e.message = sentence(err.Error())
	case ok && o.Origin.Declaration == "" && tellable(r.caller, o):
		e.message = sentence(clean(o.Error(), 500))
	}
	return e
}

// named finds the objects that the text of an error names.
var named = regexp.MustCompile(`\b(?:network|service|endpoint|zone|document)\b(?: (\S+))?`)

// tellable reports whether all that the text of a conflict names is an object in a subscription in which the caller has a
// role, or a prefix. Whatever it can't tell is somebody else's (decision 0014).
func tellable(caller control.Caller, o *link.ObjectError) bool {
	text := o.Error()
	mine := func(word string) bool {
		id, err := link.ParseID(strings.Trim(word, "():;,"))
		return err == nil && id.Subscription() != "" && caller.Rights(id.Subscription()) != 0
	}
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		if !mine(m[1]) {
			return false
		}
	}
	for word := range strings.FieldsSeq(text) {
		if !strings.Contains(word, "/") {
			continue
		}
		if _, err := netip.ParsePrefix(strings.Trim(word, "():;,")); err != nil && !mine(word) {
			return false
		}
	}
	return mine(string(o.ID)) && !strings.Contains(text, "declared")
}

// sentence makes the text of an error one of ours: a capital and a full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}
