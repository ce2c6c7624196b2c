package coremain

import (
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

// TestDirectivesAreBuiltIn: each directive of the list has a plugin, and each plugin is in the list,
// unless another one pulls it in. Caddy refuses the plugins that aren't in the list.
func TestDirectivesAreBuiltIn(t *testing.T) {
	if err := Setup(); err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, p := range caddy.ListPlugins()["others"] {
		have = append(have, strings.TrimPrefix(p, "dns."))
	}
	for _, d := range directives {
		if !slices.Contains(have, d) {
			t.Errorf("directive %s has no plugin", d)
		}
	}
	pulledIn := map[string]string{
		"dnstap": "forward imports it",
	}
	for _, d := range have {
		if pulledIn[d] == "" && !slices.Contains(directives, d) {
			t.Errorf("plugin %s is built in and not in the list", d)
		}
	}
}

// TestDirectiveOrder: what must stand before what, and why, is in the comment of the list.
func TestDirectiveOrder(t *testing.T) {
	for _, c := range [][2]string{
		{"privatelink", "cache"},
		{"privatelink", "linkexit"},
		{"linkexit", "cache"},
		{"privatelink", "header"},
		{"dnssec", "privatelink"},
		{"loadbalance", "privatelink"},
		{"privatelink", "transfer"},
		{"privatelink", "minimal"},
		{"privatelink", "template"},
		{"privatelink", "hosts"},
		{"privatelink", "file"},
		{"privatelink", "forward"},
		{"acl", "privatelink"},
		{"rewrite", "acl"},
		{"health", "linkstore"},
		{"prometheus", "linkstore"},
		{"errors", "linkstore"},
		{"log", "linkstore"},
		{"linkstore", "linknetwork"},
		{"linknetwork", "linkservice"},
		{"linkservice", "linkendpoint"},
		{"linkendpoint", "linkproxy"},
		{"linkproxy", "privatelink"},
		{"cache", "forward"},
		{"bind", "linkstore"}, // a pool is held against the addresses that are bound
	} {
		first, second := slices.Index(directives, c[0]), slices.Index(directives, c[1])
		if first < 0 || second < 0 || first >= second {
			t.Errorf("%s is at %d, %s at %d: it must come later", c[0], first, c[1], second)
		}
	}
}
