package control

import (
	"cmp"

	"github.com/postern-link/postern/link"
)

// Usage is one limit and how much of it is used.
type Usage struct {
	Name    string `json:"name"`   // such as "endpointsPerNetwork"
	Object  string `json:"object"` // of what, "kind id"
	Current int    `json:"currentValue"`
	Limit   int    `json:"limit"`
	// High: at least 80 % are used.
	High bool `json:"high,omitempty"`
}

// highMark is the part of a limit, in percent, from which [Usage] is High.
const highMark = 80

// Usage returns how much of each limit a subscription uses, networks and services in order of their IDs.
func (c *Control) Usage(caller Caller, subscription string) ([]Usage, error) {
	sees, err := c.scopeOf(caller, subscription)
	if err != nil {
		return nil, err
	}
	s, err := c.view()
	if err != nil {
		return nil, err
	}
	t := tally{limits: c.config.Limits, subscription: subscription}
	t.networks(s)
	t.services(s)
	t.zones(s)
	t.pending(s, sees)
	return t.list, nil
}

// tally collects the usage of a subscription.
type tally struct {
	limits       Limits
	subscription string
	list         []Usage
}

func (t *tally) add(name, object string, current, limit int) {
	t.list = append(t.list, Usage{
		Name: name, Object: object, Current: current, Limit: limit, High: limit > 0 && current*100 >= limit*highMark,
	})
}

func (t *tally) networks(s *link.Snapshot) {
	t.add("networks", "subscription "+t.subscription, s.Owned(link.KindNetwork, t.subscription), t.limits.Networks)
	for v := range s.Networks() {
		if v.ID.Subscription() != t.subscription {
			continue
		}
		object := "network " + string(v.ID)
		t.add("subnetsPerNetwork", object, len(v.Subnets), t.limits.Subnets)
		t.add("endpointsPerNetwork", object, s.CountIn(v.ID), t.limits.EndpointsPerNetwork)
	}
}

func (t *tally) services(s *link.Snapshot) {
	t.add("services", "subscription "+t.subscription, s.Owned(link.KindService, t.subscription), t.limits.Services)
	for v := range s.Services() {
		if v.ID.Subscription() != t.subscription {
			continue
		}
		object := "service " + string(v.ID)
		t.add("endpointsPerService", object, s.CountOf(v.ID), t.limits.EndpointsPerService)
		t.add("natPerService", object, len(v.NAT), t.limits.NAT)
		t.add("visibility", object, len(v.Visible), t.limits.Visibility)
		t.add("autoApproval", object, len(v.AutoApprove), t.limits.AutoApproval)
		t.add("namesPerService", object, len(v.Names), t.limits.NamesPerService)
		t.add("targetsPerService", object, len(v.Targets)+len(v.TargetNames), t.limits.TargetsPerService)
		if v.MaxConnections > 0 {
			t.add("approvedConnections", object, s.Approved(v.ID), v.MaxConnections)
		}
	}
}

// pending counts what the consumer waits for: what others wait for is their providers' to see.
func (t *tally) pending(s *link.Snapshot, sees scope) {
	waiting := map[link.ID]int{}
	var order []link.ID
	for v := range s.Networks() {
		if v.ID.Subscription() != t.subscription {
			continue
		}
		for e := range s.EndpointsIn(v.ID) {
			if e.Connection.State == link.Pending {
				if waiting[e.Service]++; waiting[e.Service] == 1 {
					order = append(order, e.Service)
				}
			}
		}
	}
	for _, id := range order {
		t.add("pendingPerConsumer", "service "+string(sees.service(s, id)), waiting[id], t.limits.PendingPerConsumer)
	}
}

// zones counts the private zones; their record sets where the snapshot can count them.
func (t *tally) zones(s *link.Snapshot) {
	t.add("privateZones", "subscription "+t.subscription, s.Owned(link.KindZone, t.subscription), t.limits.Zones)
}

// orDefault returns the limits with Azure's figures where none is given.
func (l Limits) orDefault() Limits {
	return Limits{
		Networks:            cmp.Or(l.Networks, 1000),
		Subnets:             cmp.Or(l.Subnets, 3000),
		EndpointsPerNetwork: cmp.Or(l.EndpointsPerNetwork, 1000),
		Services:            cmp.Or(l.Services, 800),
		EndpointsPerService: cmp.Or(l.EndpointsPerService, 1000),
		NAT:                 cmp.Or(l.NAT, link.MaxNAT),
		Visibility:          cmp.Or(l.Visibility, 100),
		AutoApproval:        cmp.Or(l.AutoApproval, 100),
		Zones:               cmp.Or(l.Zones, 1000),
		RecordSets:          cmp.Or(l.RecordSets, 25000),
		LinksPerZone:        cmp.Or(l.LinksPerZone, 1000),
		PendingPerConsumer:  cmp.Or(l.PendingPerConsumer, 100),
		NamesPerService:     cmp.Or(l.NamesPerService, 50),
		TargetsPerService:   cmp.Or(l.TargetsPerService, 256),
		RestingLinkIDs:      cmp.Or(l.RestingLinkIDs, 10000),
	}
}
