package coremain

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// brace is one that is open.
type brace struct {
	line int
	of   string // the first word of its line
}

// scanner balances the braces of a Corefile. Where they don't balance, the place that is likely to be
// wrong is another than the one where it is noticed, and noted on the way.
type scanner struct {
	c        *corefile
	open     []brace
	line     int      // that the last word stood on
	first    string   // the first word of it
	last     string   // the last word of it so far
	unspaced *problem // the first word that an opening brace is part of
	unclosed *problem // the first of our blocks that another directive stands in: ours are flat
}

// scan balances the braces and notes the keys of the server blocks.
func (c *corefile) scan(body []byte) error {
	s := scanner{c: c}
	d := caddyfile.NewDispenser(c.path, bytes.NewReader(body))
	for d.Next() {
		if p := s.word(d.Val(), d.Line()); p != nil {
			return p
		}
	}
	s.endOfLine()
	switch {
	case len(s.open) == 0:
		return nil
	case s.unspaced != nil:
		return s.unspaced
	case s.unclosed != nil:
		return s.unclosed
	}
	return &problem{c.path, s.open[0].line, "", "the brace that opens here is never closed: a \"}\" is missing"}
}

// word takes the next word of the file.
func (s *scanner) word(text string, line int) *problem {
	begins := line != s.line
	if begins {
		s.endOfLine()
		s.line, s.first = line, text
	}
	s.last = text
	switch {
	case text == "{":
		s.open = append(s.open, brace{line, s.first})
	case text == "}" && len(s.open) > 0:
		s.open = s.open[:len(s.open)-1]
	case strings.Trim(text, "{}") == "" && len(text) > 0 && len(s.open) == 0:
		if s.unspaced != nil {
			return s.unspaced
		}
		return &problem{s.c.path, line, "", quote(text) + " outside of a server block: it closes nothing"}
	case len(s.open) == 0:
		s.c.keys = append(s.c.keys, keyToken{strings.TrimSuffix(text, ","), line})
	case begins && s.unclosed == nil && slices.Contains(directives, text):
		if in := s.open[len(s.open)-1]; slices.Contains(own, in.of) {
			s.unclosed = &problem{s.c.path, in.line, in.of, fmt.Sprintf("the brace that opens here is not closed before %s in line %d", text, line)}
		}
	}
	return nil
}

// endOfLine notes a line that ends in a word with an opening brace at its end.
func (s *scanner) endOfLine() {
	word, cut := strings.CutSuffix(s.last, "{")
	if !cut || word == "" || strings.Trim(word, "{}") == "" || s.unspaced != nil {
		return
	}
	directive := s.first
	if !slices.Contains(directives, directive) {
		directive = ""
	}
	s.unspaced = &problem{s.c.path, s.line, directive, fmt.Sprintf("%s: put a space before {", quote(s.last))}
}
