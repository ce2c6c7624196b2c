package store

import (
	"errors"

	"github.com/postern-link/postern/link"
)

// Outcome returns one word for how a commit ended, as metrics count it: stored, conflict (with another
// commit), refused (by a rule), unknown or failed.
func Outcome(err error) string {
	switch {
	case err == nil:
		return "stored"
	case errors.Is(err, ErrUnknownOutcome):
		return "unknown"
	case errors.Is(err, ErrConflict):
		return "conflict"
	}
	for _, rule := range []error{link.ErrInvalid, link.ErrNotFound, link.ErrConflict, link.ErrStale, link.ErrExhausted} {
		if errors.Is(err, rule) {
			return "refused"
		}
	}
	return "failed"
}
