package armapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// apiError is an error as the caller gets it.
type apiError struct {
	status  int
	code    string // Azure's
	message string
	header  http.Header
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message) }

// fail returns an error that reaches the caller as it is.
func fail(status int, code, format string, args ...any) error {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// with returns the error with a header of the answer.
func (e *apiError) with(name, value string) *apiError {
	out := *e
	out.header = e.header.Clone()
	if out.header == nil {
		out.header = http.Header{}
	}
	out.header.Set(name, value)
	return &out
}

type errorBody struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Code    string        `json:"code"`
	Message string        `json:"message"`
	Details []errorDetail `json:"details"`
}

// failure renders an error. Every error is JSON: the SDKs fail on other bodies.
func failure(e *apiError) reply {
	h := e.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("X-Ms-Error-Code", e.code)
	return reply{status: e.status, header: h, body: errorBody{errorDetail{e.code, e.message, []errorDetail{}}}}
}

// notFound is the answer for a resource that isn't there. typ is such as "Microsoft.Network/privateEndpoints".
func (r *request) notFound(typ, name string) error {
	return fail(http.StatusNotFound, "ResourceNotFound", "The Resource '%s/%s' under resource group '%s' was not found.", typ, name, r.path("group"))
}

// unrouted is the answer for a path that no row has, or none with the method.
func unrouted(path, allow []string) error {
	if len(allow) > 0 {
		e := &apiError{status: http.StatusMethodNotAllowed, code: "MethodNotAllowed",
			message: "The resource has the methods " + strings.Join(allow, ", ") + "."}
		return e.with("Allow", strings.Join(allow, ", "))
	}
	for i, seg := range path {
		if strings.EqualFold(seg, "providers") && i+2 < len(path) {
			return fail(http.StatusNotFound, "InvalidResourceType", "The resource type %s could not be found in the namespace %s.", quote(path[i+2]), quote(path[i+1]))
		}
	}
	return fail(http.StatusNotFound, "InvalidResourceType", "There is nothing at this path.")
}

// quote bounds a text from outside for a message, between single quotes as Azure has them.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	q := strconv.Quote(s)
	return "'" + strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`) + "'"
}

// tooMany is the answer to who is too fast.
func tooMany(wait time.Duration) *apiError {
	e := &apiError{status: http.StatusTooManyRequests, code: "TooManyRequests", message: "Too many requests. Try again later."}
	return e.with("Retry-After", retryAfter(wait))
}

// retryAfter is a wait in whole seconds, at least one: clients ignore 0.
func retryAfter(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}

// unavailable is the answer while something that we depend on is away.
func unavailable(message string) *apiError {
	e := &apiError{status: http.StatusServiceUnavailable, code: "ServiceUnavailable", message: message}
	return e.with("Retry-After", "1")
}

func internalError() *apiError {
	return &apiError{status: http.StatusInternalServerError, code: "InternalServerError", message: "The request could not be handled. The log has more under its request ID."}
}

// panicked logs a panic of a handler; the process lives.
func (a *API) panicked(r *request, p any) error {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	a.Log.Error("an API handler has panicked", "operation", r.operation.label(), "request", r.id128, "panic", p, "stack", string(debug.Stack()))
	return internalError()
}
