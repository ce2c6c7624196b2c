package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// errUsage is that of wrong words or flags.
var errUsage = errors.New("wrong use")

// errReported ends a command whose errors were printed already, one for each item.
var errReported = errors.New("some items failed")

// wrongUse is an error that is errUsage and says only what it is.
type wrongUse struct{ error }

func (e wrongUse) Unwrap() []error { return []error{errUsage, e.error} }

func usageError(err error) error { return wrongUse{err} }

func usagef(format string, args ...any) error { return usageError(fmt.Errorf(format, args...)) }

// apiError is an error that the API answered with.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string {
	if e.code == "" {
		return fmt.Sprintf("the API answers %d %s", e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("%s (%s)", e.message, e.code)
}

// unreachable is an error of the way to the API.
type unreachable struct{ err error }

func (e *unreachable) Error() string { return e.err.Error() }

func (e *unreachable) Unwrap() error { return e.err }

// failedItems is the error of a command on several items: they were reported, this is the exit code.
type failedItems struct{ code int }

func (e *failedItems) Error() string { return errReported.Error() }

func (e *failedItems) Is(target error) bool { return target == errReported }

// exitCode returns the code that a command ends with.
func exitCode(err error) int {
	var api *apiError
	var away *unreachable
	var items *failedItems
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, errUsage):
		return ExitUsage
	case errors.As(err, &items):
		return items.code
	case errors.As(err, &api):
		return api.exit()
	case errors.As(err, &away):
		return ExitUnavailable
	case errors.Is(err, errNoSignIn):
		return ExitForbidden
	case errors.Is(err, errNotFound):
		return ExitNotFound
	}
	return ExitError
}

// errNoSignIn is that of a command that nothing says as whom to sign in.
var errNoSignIn = errors.New("nothing to sign in with: give POSTERN_TOKEN, --token-file, or a client certificate with --cert and --key")

// errNotFound is that of what was looked for in a list.
var errNotFound = errors.New("not found")

func (e *apiError) exit() int {
	switch e.code {
	case "InvalidPrivateLinkServiceId", "InvalidResourceReference": // what a request refers to
		return ExitNotFound
	case "RequestDisallowedByPolicy": // no right is missing: the egress list of the network is in the way
		return ExitConflict
	}
	switch e.status {
	case http.StatusNotFound:
		return ExitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return ExitForbidden
	case http.StatusConflict, http.StatusPreconditionFailed:
		return ExitConflict
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ExitUnavailable
	}
	// Azure answers 400 where something is in use or full.
	if strings.Contains(e.code, "InUse") || strings.HasSuffix(e.code, "CannotBeDeleted") || strings.HasSuffix(e.code, "LimitReached") || e.code == "SubnetIsFull" {
		return ExitConflict
	}
	return ExitError
}
