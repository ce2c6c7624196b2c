package link

import (
	"errors"
	"fmt"
)

// What is wrong with a change. Errors of this package wrap one of these.
var (
	// ErrInvalid: the object itself breaks a rule.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: no such object, or a reference to none.
	ErrNotFound = errors.New("not found")
	// ErrConflict: another object, or the state of this one, stands against the change.
	ErrConflict = errors.New("conflict")
	// ErrStale: the change names a link ID that the connection no longer has.
	ErrStale = errors.New("stale")
	// ErrExhausted: no address or link ID is left.
	ErrExhausted = errors.New("exhausted")
)

// ObjectError says which object an error is about.
type ObjectError struct {
	Kind   Kind
	ID     ID
	Origin Origin
	Err    error
}

// Error returns "kind id: what is wrong".
func (e *ObjectError) Error() string { return fmt.Sprintf("%s %s: %v", e.Kind, e.ID, e.Err) }

// Unwrap returns the error without its object.
func (e *ObjectError) Unwrap() error { return e.Err }
