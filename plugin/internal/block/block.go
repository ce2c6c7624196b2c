// Package block parses the one shape that all directives of Postern have in a Corefile: a line of
// arguments and, optionally, one flat block of properties.
//
//	linknetwork NAME PREFIX... {
//	    endpoints POOL...
//	}
//
// A directive is a table; what every directive has to check is checked here once: the number of
// arguments, unknown and repeated properties, braces. Every error carries file and line.
//
// There is no nested block on purpose: the Corefile's own reader swallows the next property where an
// optional nested block is left out.
package block

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coredns/caddy"
)

// Any, as a maximum, allows any number of arguments.
const Any = -1

// Directive says what one directive takes.
type Directive struct {
	Name  string
	Usage string // its arguments as the manual writes them, such as "NAME PREFIX..."; "" is none
	Min   int
	Max   int // 0 is none, [Any] is no bound
	// Set takes the arguments of the line; nil where there are none. Its error is positioned by Parse.
	Set        func(args []string) error
	Properties []Property
}

// Property is one line of the block.
type Property struct {
	Name   string
	Usage  string // its arguments as the manual writes them; "" is none
	Min    int
	Max    int  // 0 is none, [Any] is no bound
	Repeat bool // may be given more than once: Set is called for each
	// Secret values never appear in an error, whatever Set says of them.
	Secret bool
	// Set takes the arguments. Its error is positioned by Parse.
	Set func(args []string) error
}

// Parse reads one use of the directive, whose name c has loaded, with its block. It returns where
// the directive and its properties stand, for what is to be said of them later. Errors are [*Error].
//
//	for c.Next() {
//		at, err := block.Parse(c, block.Directive{…})
func Parse(c *caddy.Controller, d Directive) (Position, error) {
	at := Here(c, d.Name)
	if c.Val() != d.Name {
		return at, stray(at, c.Val())
	}
	args := c.RemainingArgs()
	if err := checkArgs(at, args, strings.TrimSpace(d.Name+" "+d.Usage), d.Min, d.Max); err != nil {
		return at, err
	}
	if d.Set != nil {
		if err := d.Set(args); err != nil {
			return at, at.Errorf("%w%s", err, hint(args))
		}
	}
	if !c.NextArg() { // RemainingArgs stops at an opening brace only
		if ahead := *c; ahead.Next() && ahead.Val() == "{" { // the tokens are shared, where it stands is not
			return at, stray(Here(&ahead, d.Name), "{")
		}
		return at, nil
	}
	at.lines = make(map[string]place)
	for c.Next() {
		if c.Val() == "}" {
			return at, nil
		}
		if err := parseProperty(c, d, at); err != nil {
			return at, err
		}
	}
	return at, at.Errorf("the closing brace of the block is missing")
}

// parseProperty reads the property whose name c has loaded.
func parseProperty(c *caddy.Controller, d Directive, at Position) error {
	name := c.Val()
	here := Here(c, d.Name)
	if name == "{" {
		return here.Errorf("a block within the block is not allowed")
	}
	i := slices.IndexFunc(d.Properties, func(p Property) bool { return p.Name == name })
	if i < 0 {
		return here.Errorf("unknown property %s; %s", Quote(name), d.known())
	}
	p := d.Properties[i]
	if first, ok := at.lines[name]; !ok {
		at.lines[name] = place{here.File, here.Line}
	} else if !p.Repeat {
		return here.Errorf("%s is given already at %s and may be given once", name, first)
	}
	args := c.RemainingArgs()
	if c.NextArg() { // again: an opening brace
		return here.Errorf("%s takes no block", name)
	}
	if err := checkArgs(here, args, strings.TrimSpace(p.Name+" "+p.Usage), p.Min, p.Max); err != nil {
		return err
	}
	if err := p.Set(args); err != nil {
		if p.Secret {
			return here.Errorf("%s: the value is not valid; usage: %s %s", name, p.Name, p.Usage)
		}
		return here.Errorf("%s: %w%s", name, err, hint(args))
	}
	return nil
}

// known lists the properties for an error.
func (d Directive) known() string {
	if len(d.Properties) == 0 {
		return "the block has no properties"
	}
	names := make([]string, len(d.Properties))
	for i, p := range d.Properties {
		names[i] = p.Name
	}
	return "known are " + strings.Join(names, ", ")
}

// checkArgs checks the number of arguments of a line. It names none of them: one may be secret.
func checkArgs(at Position, args []string, usage string, least, most int) error {
	if slices.Contains(args, "}") {
		return at.Errorf("the closing brace must stand on a line of its own")
	}
	if slices.Contains(args, "") {
		return at.Errorf("an argument is empty; is an environment variable of this line not set? usage: %s", usage)
	}
	if n := len(args); n < least || most != Any && n > most {
		return at.Errorf("%s given, %s allowed; usage: %s%s", count(n), bounds(least, most), usage, hint(args))
	}
	return nil
}

// hint says what arguments that were refused look like they were meant to be, "" where they don't.
func hint(args []string) string {
	for _, arg := range args {
		switch {
		case strings.Contains(arg, ","):
			return "; separate by spaces, without commas"
		case strings.HasSuffix(arg, "{"):
			return "; put a space before {"
		}
	}
	return ""
}

func count(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

func bounds(least, most int) string {
	switch {
	case most == Any:
		return fmt.Sprintf("%d or more", least)
	case most == 0:
		return "none"
	case least == most:
		return fmt.Sprintf("exactly %d", least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// stray explains a token where a directive should begin. The Corefile's reader hands us what stands
// on the line after a closing brace, and a brace on the line after the directive.
func stray(at Position, token string) error {
	if token == "{" {
		return at.Errorf("the opening brace must stand at the end of the directive's line")
	}
	return at.Errorf("unexpected %s after the end of the block", Quote(token))
}
