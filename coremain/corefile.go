package coremain

import (
	"bytes"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// corefile is one reading of a Corefile.
type corefile struct {
	path   string
	blocks []caddyfile.ServerBlock
	keys   []keyToken // of the server blocks, as they stand in the file
	// imports are what the file imports from, as far as it is there.
	imports []namedPath
}

// keyToken is a word outside all braces: the key of a server block.
type keyToken struct {
	text string
	line int
}

// parseCorefile reads a Corefile as far as Caddy's parser and our own rules go, before any directive
// is set up. The returned corefile is never nil; the error is a *problem.
//
// Caddy takes too much: for an empty file it serves a built-in one, a word alone is a server block,
// and a last closing brace may be missing when the line before it is one. Each would replace what is
// served by nothing (C11), so they are refused here.
func parseCorefile(path string, body []byte, known []string) (*corefile, error) {
	c := &corefile{path: path}
	if err := c.scan(body); err != nil {
		return c, err
	}
	c.findImports(body)
	blocks, err := caddyfile.Parse(path, bytes.NewReader(body), known)
	if err != nil {
		return c, explain(err, c)
	}
	c.blocks = blocks
	for _, rule := range rules {
		if p := rule(c); p != nil {
			return c, p
		}
	}
	return c, nil
}

// firstLine returns the line where a directive first stands, 0 where it doesn't.
func (c *corefile) firstLine(directive string) int {
	line := 0
	for _, b := range c.blocks {
		for _, t := range b.Tokens[directive] {
			if line == 0 || t.Line < line {
				line = t.Line
			}
		}
	}
	return line
}

// directiveAt returns the directive whose words stand on a line, "" where there is none.
func (c *corefile) directiveAt(line int) string {
	for _, b := range c.blocks {
		for name, tokens := range b.Tokens {
			for _, t := range tokens {
				if t.Line == line && t.File == "" {
					return name
				}
			}
		}
	}
	return ""
}

// mentioned returns line and directive that a text without a place begins with: some plugins of
// CoreDNS begin with their name only.
func (c *corefile) mentioned(text string) (int, string) {
	word, _, _ := strings.Cut(text, ": ")
	if line := c.firstLine(word); line > 0 {
		return line, word
	}
	return 0, ""
}

// keyLines returns the lines of the keys of each server block. A key that isn't in the file as it is,
// because it was imported or came from the environment, has the line of the block's first directive.
func (c *corefile) keyLines() [][]int {
	lines, next := make([][]int, len(c.blocks)), 0
	for i, b := range c.blocks {
		for _, key := range b.Keys {
			at := slices.IndexFunc(c.keys[next:], func(k keyToken) bool { return k.text == key })
			if at < 0 {
				lines[i] = append(lines[i], blockLine(b))
				continue
			}
			lines[i] = append(lines[i], c.keys[next+at].line)
			next += at + 1
		}
	}
	return lines
}

// blockLine returns the line of the first directive of a block, 0 where it has none.
func blockLine(b caddyfile.ServerBlock) int {
	line := 0
	for _, tokens := range b.Tokens {
		if l := tokens[0].Line; line == 0 || l < line {
			line = l
		}
	}
	return line
}

// quote quotes what stands in a file, bounded, for a message of one line.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return `"` + printable(s) + `"`
}

// uses cuts the words of a directive in a block into its uses: Caddy runs the words of all of them
// together, and each begins with the name, outside of braces and first on its line.
func uses(tokens []caddyfile.Token, name string) (found [][]caddyfile.Token) {
	start, depth := 0, 0
	for i, t := range tokens {
		switch {
		case t.Text == "{":
			depth++
		case t.Text == "}":
			depth--
		case i > 0 && depth == 0 && t.Text == name && !sameLine(tokens[i-1], t):
			found, start = append(found, tokens[start:i]), i
		}
	}
	if len(tokens) > 0 {
		found = append(found, tokens[start:])
	}
	return found
}
