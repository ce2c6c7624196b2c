package control

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-link/postern/link"
)

// The longest words of a caller that are kept, in bytes.
const (
	maxReason  = 1024
	maxMessage = 1024
	maxActor   = 256
)

// checkText returns an error wrapping [link.ErrInvalid] unless people can read s, and nothing else
// happens when they do: no control characters, none that turn the direction of writing.
func checkText(what, s string, longest int) error {
	switch {
	case len(s) > longest:
		return fmt.Errorf("%w: %s has %d bytes, %d are allowed", link.ErrInvalid, what, len(s), longest)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s isn't valid UTF-8", link.ErrInvalid, what)
	case strings.ContainsFunc(s, unreadable):
		return fmt.Errorf("%w: %s has characters that don't print", link.ErrInvalid, what)
	}
	return nil
}

// readable returns s as an audit entry can have it.
func readable(s string, longest int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unreadable(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	for len(s) > longest {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

func unreadable(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }
