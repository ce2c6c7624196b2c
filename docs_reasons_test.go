package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/policy"
)

// TestDocsReasons: the README of linkproxy lists each reason of a refusal or an end once, in order, and no others.
func TestDocsReasons(t *testing.T) {
	b, err := os.ReadFile("plugin/linkproxy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## Reasons\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var got []policy.Reason
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [^|]+ \\|$").FindAllStringSubmatch(section, -1) {
		got = append(got, policy.Reason(m[1]))
	}
	if want := policy.Reasons(); !slices.Equal(got, want) {
		t.Errorf("the README lists %v, want %v", got, want)
	}
}
