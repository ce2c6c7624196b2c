package coremain

import (
	"github.com/coredns/caddy/caddyfile"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// warnings returns what is allowed and most likely not meant, in the order of the Corefile.
func warnings(c *corefile) (found []*problem) {
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

// warn logs the warnings of a Corefile that is in force.
func warn(c *corefile) {
	for _, w := range warnings(c) {
		clog.Warning(w.Error())
	}
}
