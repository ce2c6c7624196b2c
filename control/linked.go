package control

import (
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// linked is resolve for a name that private zones linked to the network have something to say about; ok is
// false where they haven't. It is the same walk as in the directive privatelink.
func (o observed) linked(s *link.Snapshot, n *link.Network, site string, asked []byte) (r resolution, ok bool) {
	name := link.Name(asked)
	zone, redirect, in := s.LinkedZone(n.ID, asked)
	source, exists, alias := "", true, false
	if in {
		relative, _ := zone.Relative(name)
		source, exists = inLinked(s, n.ID, zone, relative)
	} else {
		private, has := s.GroupedAlias(name)
		if !has {
			return r, false
		}
		if zone, redirect, in = s.LinkedZone(n.ID, []byte(private)); !in {
			return r, false
		}
		alias = true
		source, _ = zone.Relative(private)
		if len(groups(s, zone.ID, source)) == 0 {
			source = pattern(source)
		}
	}
	r = resolution{zone: zone.Name, rule: "private zone " + string(zone.ID)}
	var all []group
	if exists {
		all = groups(s, zone.ID, source)
	}
	if alias && len(all) == 0 {
		return r, false
	}
	if g := o.choose(all); g != nil {
		v := s.Service(g.service)
		if v != nil && v.FallbackPublic && !o.healthy(g.service) {
			r.answer, r.rule = AnswerPass, "no target answers, and the service wants its public address then"
			return r, true
		}
		r.answer, r.service, r.endpoints = AnswerEndpoint, g.service, g.endpoints
		r.give(o.nearest(s, site, g.service, g.endpoints))
		return o.trusted(r, v != nil && v.Strict), true
	}
	some := false
	if exists && !alias {
		r.addresses, r.alias, some = records(s, zone.ID, source)
		some = some || source == link.Apex
	}
	switch {
	case exists && !alias && (some || !redirect || len(all) == 0):
		r.answer = AnswerZone
		if len(r.addresses) == 0 && r.alias == "" {
			r.answer = AnswerNoData
		}
	case redirect || alias:
		return r, false
	default:
		r.answer = AnswerDenied
	}
	return o.trusted(r, false), true
}

// choose returns the group that answers: of those that are published the first that is healthy, and where none is the
// first. Nil where none is published.
func (o observed) choose(all []group) *group {
	all = slices.DeleteFunc(slices.Clone(all), func(g group) bool { return !o.published(g.service) })
	if len(all) == 0 {
		return nil
	}
	return &all[max(0, slices.IndexFunc(all, func(g group) bool { return o.healthy(g.service) }))]
}

// trusted returns r, or that nothing can be answered where the view is too old.
func (o observed) trusted(r resolution, strict bool) resolution {
	if o.view.Level(strict) >= policy.Stale {
		r.answer, r.rule, r.addresses = AnswerFail, o.view.String(), nil
		r.alias = ""
	}
	return r
}

// inLinked returns the name in a zone whose records answer for a relative name: itself, or the wildcard at
// the closest encloser (RFC 4592 section 3.3.1), and whether there is such a name.
func inLinked(s *link.Snapshot, network link.ID, zone *link.PrivateZone, relative string) (source string, exists bool) {
	there := func(name string) bool {
		return s.ExistsIn(zone.ID, name) || s.OwnsBelow(network, []byte(zone.Full(name)))
	}
	if there(relative) {
		return relative, true
	}
	far := false
	for rest := relative; ; far = true {
		_, above, ok := strings.Cut(rest, ".")
		if !ok {
			source = "*"
			break
		}
		if there(above) {
			source = "*." + above
			break
		}
		rest = above
	}
	for range s.RecordSetsAt(zone.ID, source) {
		return source, true
	}
	return source, !far && s.ExistsIn(zone.ID, source)
}

// pattern replaces the first label of a relative name by "*".
func pattern(relative string) string {
	if _, rest, ok := strings.Cut(relative, "."); ok {
		return "*." + rest
	}
	return "*"
}

// group is the live endpoints of a service that have a name in a zone.
type group struct {
	service   link.ID
	endpoints []*link.Endpoint
}

// groups returns them by service, in order.
func groups(s *link.Snapshot, zone link.ID, name string) []group {
	var all []group
	for e := range s.Grouped(zone, name) {
		if !e.Connection.Live() {
			continue
		}
		i := slices.IndexFunc(all, func(g group) bool { return g.service == e.Service })
		if i < 0 {
			i, all = len(all), append(all, group{service: e.Service})
		}
		all[i].endpoints = append(all[i].endpoints, e)
	}
	slices.SortFunc(all, func(a, b group) int { return strings.Compare(string(a.service), string(b.service)) })
	return all
}

// records returns the addresses that the record sets of a name hold, what they say it is an alias of, and whether there are any records at all.
func records(s *link.Snapshot, zone link.ID, name string) (addresses []string, alias link.Name, some bool) {
	for r := range s.RecordSetsAt(zone, name) {
		if r.Type == "SOA" {
			continue
		}
		some = true
		switch r.Type {
		case "A", "AAAA":
			addresses = append(addresses, r.Data...)
		case "CNAME":
			alias = link.Name(strings.TrimSuffix(r.Data[0], "."))
		}
	}
	return addresses, alias, some
}
