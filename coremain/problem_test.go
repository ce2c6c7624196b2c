package coremain

import (
	"errors"
	"fmt"
	"testing"

	"github.com/coredns/coredns/plugin"
)

// ownError stands for an error of one of our directives.
type ownError struct{ text string }

func (e ownError) Error() string           { return "conf/part:7 - linkservice: " + e.text }
func (e ownError) Position() (string, int) { return "conf/part", 7 }

func TestExplain(t *testing.T) {
	c, err := parseCorefile("Corefile", []byte(".:53 {\n privatelink\n cache\n reload 1s\n forward . x\n}\n"), directives)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		err        error
		line, lint string
	}{
		"ours": {ownError{"no target"},
			"conf/part:7 - linkservice: no target", "conf/part:7: linkservice: no target"},
		"ours, after a restart made text of it": {fmt.Errorf("starting with listener file descriptors: %v", ownError{"no target"}),
			"conf/part:7 - linkservice: no target", "conf/part:7: linkservice: no target"},
		"plugin with a place": {plugin.Error("cache", errors.New("Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'x'")),
			"Corefile:3 - cache: Wrong argument count or unexpected line ending after 'x'", "Corefile:3: cache: Wrong argument count or unexpected line ending after 'x'"},
		"plugin without a place": {plugin.Error("reload", errors.New("interval value must be greater or equal to 2s")),
			"Corefile:4 - reload: interval value must be greater or equal to 2s", "Corefile:4: reload: interval value must be greater or equal to 2s"},
		"plugin that isn't in the file": {plugin.Error("acl", errors.New("no")),
			"Corefile - acl: no", "Corefile: acl: no"},
		"place without a plugin": {errors.New("Corefile:5 - Error during parsing: unknown property 'x'"),
			"Corefile:5 - forward: unknown property 'x'", "Corefile:5: forward: unknown property 'x'"},
		"unknown directive": {errors.New("Corefile:9 - Error during parsing: Unknown directive 'whoami'"),
			`Corefile:9 - whoami: unknown directive; "postern -plugins" lists those that are allowed`, `Corefile:9: whoami: unknown directive; "postern -plugins" lists those that are allowed`},
		"name of a plugin in front": {errors.New("cache: too large"),
			"Corefile:3 - cache: too large", "Corefile:3: cache: too large"},
		"neither": {errors.New("listen tcp 127.0.0.1:53: bind: permission denied"),
			"Corefile - listen tcp 127.0.0.1:53: bind: permission denied", "Corefile: listen tcp 127.0.0.1:53: bind: permission denied"},
		"several lines, control characters": {errors.New("a\n\tb\x1b[31mc"),
			"Corefile - a b.[31mc", "Corefile: a b.[31mc"},
		"line beyond int": {errors.New("Corefile:99999999999999999999 - no"),
			"Corefile:9223372036854775807 - no", "Corefile:9223372036854775807: no"},
	} {
		t.Run(name, func(t *testing.T) {
			p := explain(tc.err, c)
			if p.Error() != tc.line {
				t.Errorf("line %q, want %q", p.Error(), tc.line)
			}
			if p.Lint() != tc.lint {
				t.Errorf("lint %q, want %q", p.Lint(), tc.lint)
			}
		})
	}
}
