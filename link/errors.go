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

// Finer errors, each of which is one of those above too.
var (
	// ErrOutside: an address is in none of the prefixes that it has to be in.
	ErrOutside error = &finer{ErrInvalid}
	// ErrOverlap: two subnets of a network have addresses in common.
	ErrOverlap error = &finer{ErrInvalid}
	// ErrReserved: an address is one that is never given out.
	ErrReserved error = &finer{ErrInvalid}
	// ErrTaken: an address is another's, which the message may not name.
	ErrTaken error = &finer{ErrConflict}
	// ErrEgress: the consumer's network may not have endpoints to the service.
	ErrEgress error = &finer{ErrConflict}
)

type finer struct{ error }

// Unwrap returns the error that it is a case of.
func (f *finer) Unwrap() error { return f.error }

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
