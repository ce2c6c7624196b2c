package policy

import (
	"github.com/postern-link/postern/link"
)

// Missing is an object that a rule names and that isn't there. While it isn't the rule holds for nothing by
// that name: one that denies lets pass what its author thought of. It may come yet, and so it is no error.
type Missing struct {
	Policy, Rule string
	Kind         link.Kind
	ID           link.ID
}

// Missing returns what the rules name and a snapshot doesn't have, in the order of the rules.
func (p *Policy) Missing(s *link.Snapshot) (all []Missing) {
	for _, set := range p.sets() {
		for i := range set.Rules {
			r := &set.Rules[i]
			lookUp := func(kind link.Kind, ids []link.ID, there func(link.ID) bool) {
				for _, id := range ids {
					if !there(id) {
						all = append(all, Missing{set.Name, r.Name, kind, id})
					}
				}
			}
			lookUp(link.KindEndpoint, r.Endpoints, func(id link.ID) bool { return s.Endpoint(id) != nil })
			lookUp(link.KindService, r.Services, func(id link.ID) bool { return s.Service(id) != nil })
			lookUp(link.KindNetwork, r.Networks, func(id link.ID) bool { return s.Network(id) != nil })
		}
	}
	return all
}
