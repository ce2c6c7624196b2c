package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestClaimsHaveTests: the tests and scenarios that docs/security.md names are there.
func TestClaimsHaveTests(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| [^|]+ \| ([^|]+) \|$`)
	place := regexp.MustCompile("`([a-z/]+)`|\\b((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)")
	scenario := regexp.MustCompile("`([a-z-]+)`")
	n := 0
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for part := range strings.SplitSeq(m[1], ";") {
			if _, names, ok := strings.Cut(part, "scenario"); ok {
				for _, name := range scenario.FindAllStringSubmatch(names, -1) {
					n++
					if _, err := os.Stat(filepath.Join("integration/testdata", name[1]+".txtar")); err != nil {
						t.Error(err)
					}
				}
				continue
			}
			dir := ""
			for _, w := range place.FindAllStringSubmatch(part, -1) {
				if w[1] != "" {
					dir = w[1]
				} else if n++; !hasTest(t, dir, w[2]) {
					t.Errorf("%s has no %s", dir, w[2])
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("%d claims were checked: the table isn't what this test reads", n)
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
