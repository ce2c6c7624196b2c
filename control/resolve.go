package control

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// What DNS does with a name, as [Explanation] says it.
const (
	AnswerEndpoint = "endpoint" // the addresses of endpoints
	AnswerZone     = "zone"     // by a private zone that is linked to the network
	AnswerPass     = "pass"     // as if nothing of Postern's existed: the next server is asked
	AnswerNoData   = "nodata"   // the name exists and has no address
	AnswerDenied   = "nxdomain" // a private zone that is linked to the network doesn't have the name
	AnswerFail     = "servfail" // the state can't be trusted: better no answer than the public one
)

// observed is what is known of a moment beside the snapshot.
type observed struct {
	published, healthy func(service link.ID) bool
	healthyAt          func(service link.ID, site string) bool
	view               policy.Freshness
}

func (c *Control) observed() observed {
	yes := func(link.ID) bool { return true }
	o := observed{published: c.config.Published, healthy: c.config.Healthy, healthyAt: c.config.HealthyAt}
	if o.published == nil {
		o.published = yes
	}
	if o.healthy == nil {
		o.healthy = yes
	}
	if o.healthyAt == nil {
		o.healthyAt = func(link.ID, string) bool { return true }
	}
	if c.config.View != nil {
		o.view = c.config.View()
	}
	return o
}

// resolution is what DNS does with a name in one network.
type resolution struct {
	answer    string
	rule      string // what decided
	service   link.ID
	zone      link.Name
	endpoints []*link.Endpoint // of the service in the network, in any state: those that answer come first
	addresses []string         // that are answered
	fallback  bool             // to the public address
	alias     link.Name        // what the name is one of, by a record set; then nothing but the rule is given
}

// found is what a name on the way that aliases lead along is.
type found struct {
	name link.Name
	resolution
}

// follow resolves a name and, while they are aliases of linked zones, the names that it leads to, in order.
func (o observed) follow(s *link.Snapshot, n *link.Network, site string, name link.Name, zones *link.Zones) (way []found) {
	for range link.MaxAliases + 1 {
		r := o.resolve(s, n, site, name, zones)
		way = append(way, found{name, r})
		if r.alias == "" {
			return way
		}
		name = r.alias
	}
	end := &way[link.MaxAliases]
	end.resolution = resolution{answer: AnswerFail, rule: fmt.Sprintf("more than %d aliases", link.MaxAliases)}
	return way
}

// resolve says what the directive privatelink does by default with a name that a client of the network at a site of it
// asks for. It is the same walk as in that plugin, which has a test that both agree.
func (o observed) resolve(s *link.Snapshot, n *link.Network, site string, name link.Name, zones *link.Zones) resolution {
	asked := []byte(name)
	if link.IsProof(asked) {
		return resolution{answer: AnswerPass, rule: "names that prove a domain are for public DNS"}
	}
	owner, _, owned := s.Owner(n.ID, asked)
	r := resolution{answer: AnswerPass}
	if owned {
		r = o.ofOwner(s, n, site, owner)
		if r.answer != AnswerPass || r.fallback {
			return r
		}
	} else if r, ok := o.reverse(s, n, asked); ok {
		return r
	}
	if in, ok := o.linked(s, n, site, asked); ok {
		if len(in.endpoints) == 0 {
			in.service, in.endpoints = r.service, r.endpoints // what stands in the network itself, in no state to answer
		}
		return in
	}
	return o.inZone(s, n, asked, zones, owned, r)
}

// reverse is resolve for the reverse name of an endpoint's address, which has no address itself; ok is false where it is none.
func (o observed) reverse(s *link.Snapshot, n *link.Network, asked []byte) (r resolution, ok bool) {
	addr, ok := link.ParseReverse(asked)
	if !ok {
		return r, false
	}
	e := s.EndpointAt(addr)
	if e == nil || e.Network != n.ID || !e.Connection.Live() || !o.published(e.Service) {
		return r, false
	}
	v := s.Service(e.Service)
	if v == nil || v.HostName() == "" {
		return r, false
	}
	r = resolution{answer: AnswerNoData, rule: "reverse name of " + e.Address.String() + ", which is " + string(v.HostName()), service: v.ID, endpoints: []*link.Endpoint{e}}
	return o.trusted(r, v.Strict), true
}

// ofOwner is resolve for a name that endpoints of a service have in the network.
func (o observed) ofOwner(s *link.Snapshot, n *link.Network, site string, owner link.Owner) resolution {
	r := resolution{answer: AnswerPass, service: owner.Service, zone: owner.Name.Zone}
	v := s.Service(owner.Service)
	strict, fallback := v != nil && v.Strict, v != nil && v.FallbackPublic
	live := 0
	for e := range s.EndpointsFor(n.ID, owner.Service) {
		if e.Connection.Live() {
			r.endpoints = slices.Insert(r.endpoints, live, e)
			live++
		} else {
			r.endpoints = append(r.endpoints, e)
		}
	}
	switch {
	case o.view.Level(strict) >= policy.Stale:
		r.answer, r.rule = AnswerFail, o.view.String()
	case live == 0:
		r.rule = "no connection is in force"
	case !o.published(owner.Service):
		r.rule = "no target has answered a probe yet"
	case fallback && !o.healthy(owner.Service):
		r.fallback, r.rule = true, "no target answers, and the service wants its public address then"
	default:
		r.answer, r.rule = AnswerEndpoint, "name "+string(owner.Name.Public)
		r.give(o.nearest(s, site, owner.Service, r.endpoints[:live]))
	}
	return r
}

// give has the resolution answer with some of its endpoints, which come first then.
func (r *resolution) give(some []*link.Endpoint) {
	rest := slices.DeleteFunc(slices.Clone(r.endpoints), func(e *link.Endpoint) bool { return slices.Contains(some, e) })
	r.endpoints = slices.Concat(some, rest)
	for _, e := range some {
		r.addresses = append(r.addresses, e.Address.String())
	}
}

// nearest returns those of the endpoints of a service that answer a client at a site: of each family, of itself.
func (o observed) nearest(s *link.Snapshot, site string, service link.ID, endpoints []*link.Endpoint) []*link.Endpoint {
	type place struct {
		is4  bool
		site string
	}
	at := func(e *link.Endpoint) place {
		if n := s.Network(e.Network); n != nil {
			return place{e.Address.Is4(), n.Sites.Of(e.Address)}
		}
		return place{e.Address.Is4(), ""}
	}
	sites := map[bool][]string{} // by place.is4
	for _, e := range endpoints {
		if p := at(e); !slices.Contains(sites[p.is4], p.site) {
			sites[p.is4] = append(sites[p.is4], p.site)
		}
	}
	for family, all := range sites {
		sites[family] = link.Nearest(all, site, func(site string) bool { return o.healthyAt(service, site) })
	}
	var all []*link.Endpoint
	for _, e := range endpoints {
		if p := at(e); slices.Contains(sites[p.is4], p.site) {
			all = append(all, e)
		}
	}
	return all
}

// inZone completes the resolution of a name without an answer that may lie in a privatelink zone.
func (o observed) inZone(s *link.Snapshot, n *link.Network, asked []byte, zones *link.Zones, owned bool, r resolution) resolution {
	zone := zoneOf(s, n.ID, asked, zones)
	if zone == "" {
		if r.rule == "" {
			r.rule = "no endpoint of the network has the name"
		}
		return r
	}
	r.zone = zone
	apex := len(asked) == len(zone)
	switch {
	case !s.HasZone(n.ID, []byte(zone)):
		if r.rule == "" {
			r.rule = "no endpoint of the network has a name in zone " + string(zone)
		}
		return r
	case apex:
		r.answer, r.rule = AnswerNoData, "apex of zone "+string(zone)
	case !owned && s.OwnsBelow(n.ID, asked):
		r.answer, r.rule = AnswerNoData, "only names below it have endpoints (RFC 8020)"
	case r.rule == "":
		r.rule = "no endpoint in zone " + string(zone) + ": the default miss policy"
		return r
	default:
		return r
	}
	if o.view.Level(false) >= policy.Stale {
		r.answer, r.rule = AnswerFail, o.view.String()
	}
	return r
}

// zoneOf returns the privatelink zone of a name: one of the table, or one that a service brought along.
func zoneOf(s *link.Snapshot, network link.ID, asked []byte, zones *link.Zones) link.Name {
	if zones != nil {
		if zone := zones.Zone(asked); zone != "" {
			return zone
		}
	}
	for rest := asked; ; {
		if s.HasZone(network, rest) {
			for { // the zone is the last of the names that exist
				_, parent, ok := bytes.Cut(rest, []byte("."))
				if !ok || !s.OwnsBelow(network, parent) {
					return link.Name(rest)
				}
				rest = parent
			}
		}
		_, parent, ok := bytes.Cut(rest, []byte("."))
		if !ok {
			return ""
		}
		rest = parent
	}
}

// commas joins what is listed in one line.
func commas[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = string(s)
	}
	return strings.Join(words, ", ")
}
