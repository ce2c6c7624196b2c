package coremain

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// problem is one thing that is wrong with a Corefile.
type problem struct {
	File      string
	Line      int // 0: not known
	Directive string
	Text      string // what is wrong and what is allowed, one line
}

// Error is the line that a refused start or reload prints: "FILE:LINE - directive: what is wrong".
func (p *problem) Error() string { return p.place() + " - " + p.what() }

// Lint is the line that validate prints, in the form that editors follow: "FILE:LINE: directive: ...".
func (p *problem) Lint() string { return p.place() + ": " + p.what() }

func (p *problem) place() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

func (p *problem) what() string {
	if p.Directive == "" {
		return p.Text
	}
	return p.Directive + ": " + p.Text
}

// positioned is an error of one of our own directives, which knows where it is.
type positioned interface {
	error
	Position() (file string, line int)
}

// The forms that errors of Caddy and of CoreDNS's plugins come in, as text only.
var (
	rePlugin  = regexp.MustCompile(`^plugin/([a-z0-9_]+): `)
	rePlace   = regexp.MustCompile(`^(.+?):(\d+) - `)
	reImport  = regexp.MustCompile(`^(File to import not found|Could not import|Import |Glob pattern )`)
	reUnknown = regexp.MustCompile(`^Unknown directive '(.*)'$`)
	noise     = []string{"starting with listener file descriptors: ", "error inspecting server blocks: ", "Error during parsing: ", "Syntax error: "}
)

// explain makes a problem of any error that starting or checking the Corefile c can return.
func explain(err error, c *corefile) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	p = &problem{File: c.path}
	text := strings.Join(strings.Fields(err.Error()), " ")
	for again := true; again; {
		again = false
		for _, n := range noise {
			if rest, ok := strings.CutPrefix(text, n); ok {
				text, again = rest, true
			}
		}
		if m := rePlugin.FindStringSubmatch(text); m != nil && p.Directive == "" {
			p.Directive, text, again = m[1], text[len(m[0]):], true
		}
		if m := rePlace.FindStringSubmatch(text); m != nil && p.Line == 0 {
			p.File, text, again = m[1], text[len(m[0]):], true
			p.Line, _ = strconv.Atoi(m[2]) // digits; too many of them leave the largest int
		}
	}
	if m := reUnknown.FindStringSubmatch(text); m != nil {
		p.Directive, text = m[1], "unknown directive; \"postern -plugins\" lists those that are allowed"
	}
	if p.Directive == "" && reImport.MatchString(text) {
		p.Directive = "import"
	}
	var at positioned
	if errors.As(err, &at) {
		p.File, p.Line = at.Position()
	}
	if p.Line == 0 {
		if p.Directive == "" {
			p.Line, p.Directive = c.mentioned(text)
		} else {
			p.Line = c.firstLine(p.Directive)
		}
	}
	if word, rest, ok := strings.Cut(text, ": "); ok && slices.Contains(directives, word) && (p.Directive == "" || p.Directive == word) {
		p.Directive, text = word, rest // the form of our own directives
	}
	if p.Directive == "" && p.File == c.path {
		p.Directive = c.directiveAt(p.Line)
	}
	p.Directive, p.Text = printable(p.Directive), printable(text)
	return p
}

// maxText bounds a message, in bytes: it may quote a file that is no Corefile at all.
const maxText = 1000

// printable makes one bounded line of printable characters.
func printable(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, s)
}
