package coremain

import clog "github.com/coredns/coredns/plugin/pkg/log"

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
	return found
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
