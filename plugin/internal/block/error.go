package block

import (
	"fmt"

	"github.com/coredns/caddy"
)

// Error is what is wrong with one directive of a Corefile, and where.
type Error struct {
	File      string
	Line      int
	Directive string
	Msg       string // what is wrong and what is allowed; no value of a secret property
	Err       error  // what Msg was made of, for errors.Is; may be nil
}

// Error returns "FILE:LINE - directive: message".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d - %s: %s", e.File, e.Line, e.Directive, e.Msg)
}

// Unwrap returns the error that the message was made of, if any.
func (e *Error) Unwrap() error { return e.Err }

// Position returns where it is. Code outside plugin/, which can't name this type, finds it with
// errors.As on an interface of this method.
func (e *Error) Position() (file string, line int) { return e.File, e.Line }

// Position is where a directive, or one property of it, stands. The zero Position is nowhere.
type Position struct {
	File      string
	Line      int
	Directive string
	lines     map[string]place // of the properties that were given
}

// place is a position without its directive: a block may span files by way of import.
type place struct {
	file string
	line int
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// Here returns the position of the token that c has loaded, as one of the directive.
func Here(c *caddy.Controller, directive string) Position {
	return Position{File: c.File(), Line: c.Line(), Directive: directive}
}

// String returns "FILE:LINE".
func (p Position) String() string { return place{p.File, p.Line}.String() }

// Property returns the position of a property's (first) line, that of the directive where the
// property wasn't given.
func (p Position) Property(name string) Position {
	if at, ok := p.lines[name]; ok {
		p.File, p.Line = at.file, at.line
	}
	return p
}

// Has reports whether the property was given.
func (p Position) Has(name string) bool {
	_, ok := p.lines[name]
	return ok
}

// Errorf returns an [*Error] at the position. It wraps what %w names.
func (p Position) Errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{File: p.File, Line: p.Line, Directive: p.Directive, Msg: err.Error(), Err: err}
}
