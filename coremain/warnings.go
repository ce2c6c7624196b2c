package coremain

import (
	"iter"
	"slices"
	"strings"

	"github.com/coredns/caddy/caddyfile"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// warnings returns what is allowed and most likely not meant.
func warnings(c *corefile) []*problem { return append(unserved(c), undeclared(c)...) }

// unserved warns of endpoints that are declared and not served, or not asked about.
func unserved(c *corefile) (found []*problem) {
	endpoints := allUses(c, "linkendpoint")
	if len(endpoints) == 0 {
		return nil
	}
	at := endpoints[0][0]
	warn := func(text string) {
		found = append(found, &problem{fileOf(c, at), at.Line, "warning", count(len(endpoints), "endpoint") + text})
	}
	if there, _ := dataPlane(c); !there {
		warn(" and no linkproxy: nothing listens on their addresses")
	}
	if len(allUses(c, "privatelink")) == 0 && named(c) {
		warn(" and no privatelink: DNS doesn't answer with their addresses")
	}
	return append(found, unreviewed(c)...)
}

// undeclared warns of rules that name what the Corefile doesn't declare, where nothing else can: there is no API, and
// no state that others write to. Most likely it is misspelt, and the rule holds for nothing by that name.
func undeclared(c *corefile) (found []*problem) {
	place, err := c.place()
	if err != nil || place.Shared() || len(allUses(c, "linkapi")) > 0 {
		return nil
	}
	for _, words := range allUses(c, "linkpolicy") {
		for i := 1; i < len(words); i++ {
			if words[i].Text != "rule" || sameLine(words[i], words[i-1]) {
				continue
			}
			for kind, id := range objects(arguments(words[i:])) {
				if !declared(c, kind, id.Text) {
					found = append(found, &problem{fileOf(c, id), id.Line, "warning",
						"a rule names the " + kind + " " + quote(id.Text) + ", which isn't declared: it holds for nothing by it"})
				}
			}
		}
	}
	return found
}

// ruleWords are the conditions of a rule, as linkpolicy reads them.
var ruleWords = []string{"endpoint", "service", "tenant", "network", "source", "name", "port", "time", "when"}

// objects yields the objects that a rule names, with what each is. What follows the word of a condition is a value.
func objects(rule []caddyfile.Token) iter.Seq2[string, caddyfile.Token] {
	return func(yield func(string, caddyfile.Token) bool) {
		rule = rule[min(1, len(rule)):] // its name
		for len(rule) > 0 && rule[0].Text != "allow" && rule[0].Text != "deny" {
			rule = rule[1:]
		}
		word, n := "", 0
		for _, t := range rule[min(1, len(rule)):] {
			if n != 1 && slices.Contains(ruleWords, t.Text) {
				word, n = t.Text, 1
				continue
			}
			n++
			if slices.Contains([]string{"endpoint", "service", "network"}, word) && !yield(word, t) {
				return
			}
		}
	}
}

// declared reports whether the Corefile declares an object.
func declared(c *corefile, kind, id string) bool {
	return slices.ContainsFunc(allUses(c, "link"+kind), func(words []caddyfile.Token) bool {
		return strings.EqualFold(first(arguments(words)), id)
	})
}

// unreviewed warns of declared endpoints that a list approves where a program is asked to review requests:
// it reviews those of the API, and its operator may think that it reviews these.
func unreviewed(c *corefile) []*problem {
	asked := ""
	for _, words := range allUses(c, "linkpolicy") {
		if len(property(words, "program")) > 0 && hasWord(property(words, "ask"), "reviews") {
			asked = first(arguments(words))
			break
		}
	}
	if asked == "" {
		return nil
	}
	lists := map[string]bool{}
	for _, words := range allUses(c, "linkservice") {
		lists[first(arguments(words))] = len(property(words, "approve")) > 0
	}
	var approved [][]caddyfile.Token
	for _, words := range allUses(c, "linkendpoint") {
		if lists[first(property(words, "service"))] {
			approved = append(approved, words)
		}
	}
	if len(approved) == 0 {
		return nil
	}
	at := approved[0][0]
	return []*problem{{fileOf(c, at), at.Line, "warning", count(len(approved), "declared endpoint") +
		" of services with approve, about which the program of policy " + asked + " isn't asked: it reviews requests through the API"}}
}

// first returns the text of the first word, "" where there is none.
func first(words []caddyfile.Token) string {
	if len(words) == 0 {
		return ""
	}
	return words[0].Text
}

// named reports whether a service has names that DNS could answer.
func named(c *corefile) bool {
	for _, words := range allUses(c, "linkservice") {
		if len(property(words, "names")) > 0 {
			return true
		}
	}
	return false
}

// warn logs the warnings of a Corefile that is in force. The node itself says what rules name and isn't there.
func warn(c *corefile) {
	for _, w := range unserved(c) {
		clog.Warning(w.Error())
	}
}
