package linkexit

import (
	"fmt"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/handover"
)

var _ handover.Exit = (*Linkexit)(nil)

// Explain implements [handover.Exit].
func (e *Linkexit) Explain(network link.ID, asked link.Name) (result, by string) {
	rule := e.ruleFor(network)
	if rule == nil {
		return unjudged.verdict(), "no linkexit is for the network"
	}
	by = fmt.Sprintf("%s at %s, mode %s", name, rule.at, rule.mode)
	r := new(dns.Msg).SetQuestion(dns.Fqdn(string(asked)), dns.TypeA)
	if why := rule.allows(&query{rule: rule, r: r, name: fold(r.Question[0].Name)}); why != passed {
		return why.verdict() + ": " + why.String(), by
	}
	if rule.rates != nil || rule.names != nil {
		return passed.verdict() + ", within its limits", by
	}
	return passed.verdict(), by
}
