package control

import (
	"fmt"
	"strings"
)

// Error returns "what: the limit of N is reached".
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: the limit of %d is reached", e.What, e.Limit)
}

// Unwrap returns [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// Error returns "what: the limit of N in a minute is reached".
func (e *OftenError) Error() string {
	return fmt.Sprintf("%s: the limit of %d in a minute is reached", e.What, e.Limit)
}

// Unwrap returns [ErrOften].
func (e *OftenError) Unwrap() error { return ErrOften }

// Error lists what needs the object.
func (e *InUseError) Error() string {
	more := ""
	if e.N > len(e.By) {
		more = fmt.Sprintf(" and %d more", e.N-len(e.By))
	}
	return fmt.Sprintf("in use by %s%s", strings.Join(e.By, ", "), more)
}

// Unwrap returns [ErrInUse].
func (e *InUseError) Unwrap() error { return ErrInUse }
