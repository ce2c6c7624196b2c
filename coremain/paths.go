package coremain

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// position is where a word of a Corefile stands.
type position struct {
	file      string
	line      int
	directive string // "": the file itself
}

// namedPath is a file or a directory that a Corefile names and that is there.
type namedPath struct {
	at   position
	path string // absolute, with links in it
	dir  bool
}

// directories returns the directories to read for a path: the one that it names or is in, and the one where its
// links lead. A file that is renewed is replaced there. A file in the root directory is read alone.
func (p namedPath) directories() (all []string) {
	real, err := filepath.EvalSymlinks(p.path)
	if err != nil {
		real = p.path
	}
	for _, path := range []string{p.path, real} {
		if dir := filepath.Dir(path); !p.dir && dir != "/" {
			path = dir
		}
		all = append(all, path)
	}
	return all
}

// paths returns the files that the words of a Corefile name, whichever directive they belong to, those that it
// imports, and itself, in a fixed order. A relative word is one only if a file has that name; a directory is named
// by its absolute path, as "." and "/" mean zones and more besides.
func (c *corefile) paths() []namedPath {
	all, files := slices.Clone(c.imports), map[string]bool{}
	nothing := map[string]bool{} // words that name no file: a large Corefile says the same ones thousands of times
	add := func(at position, text string) {
		if nothing[text] {
			return
		}
		path := absolute(text)
		info, err := os.Stat(path)
		if err != nil || path == "/" || info.IsDir() && !filepath.IsAbs(text) || !info.IsDir() && !info.Mode().IsRegular() {
			nothing[text] = true
			return
		}
		all = append(all, namedPath{at, path, info.IsDir()})
	}
	if c.path != "stdin" {
		add(position{file: c.path, line: 1}, c.path)
	}
	for _, b := range c.blocks {
		for _, name := range slices.Sorted(maps.Keys(b.Tokens)) {
			for _, t := range b.Tokens[name] {
				if t.File != "" && t.File != c.path && !files[t.File] {
					files[t.File] = true
					add(position{file: t.File, line: 1}, t.File)
				}
				if looksLikePath(t) {
					add(position{fileOf(c, t), t.Line, name}, t.Text)
				}
			}
		}
	}
	return all
}

// looksLikePath says whether a word is worth a look at the disk.
func looksLikePath(t caddyfile.Token) bool {
	return t.Text != "" && t.Text != "{" && t.Text != "}" && len(t.Text) < 4096 && !strings.Contains(t.Text, "\x00")
}

// findImports keeps the directories that the file imports from: a pattern may match nothing yet, and where the sandbox
// hides the directory it matches nothing without an error.
func (c *corefile) findImports(body []byte) {
	n := 0
	for line := range bytes.Lines(body) {
		n++
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0] != "import" {
			continue
		}
		path := strings.Trim(words[1], `"`)
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(absolute(c.path)), path)
		}
		for strings.ContainsAny(path, "*?[") {
			path = filepath.Dir(path)
		}
		if info, err := os.Stat(path); err == nil && path != "/" {
			c.imports = append(c.imports, namedPath{position{c.path, n, "import"}, path, info.IsDir()})
		}
	}
}

// hasPrograms reports whether a policy program is named.
func (c *corefile) hasPrograms() bool {
	for _, words := range allUses(c, "linkpolicy") {
		if len(property(words, "program")) > 0 {
			return true
		}
	}
	return false
}

// absolute returns the absolute path of a word; the word itself where the working directory is gone.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
