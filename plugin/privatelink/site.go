package privatelink

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// addressed is one name with the endpoints of one service, which may be at several sites. It is immutable.
type addressed struct {
	all    *set     // with the addresses of all of them
	sites  families // that they are at, in the order of their endpoints
	placed []placed // nil where each family is at one site
	near   []nearby // those of each site
	build  func([]netip.Addr) *set
}

// families are sites, each once: of the endpoints with IPv4 and of those with IPv6. An endpoint has one address, and a client of a
// family has no use for one that is near and of the other.
type families [2][]string

// placed is an endpoint's address, with its site.
type placed struct {
	address netip.Addr
	site    string
}

// nearby is the endpoints at some of the sites.
type nearby struct {
	at  families
	set *set
}

// familyOf returns the place of an address in [families].
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// addressedBy returns the name with the addresses of endpoints. Build makes the records of the name with some of them.
func (g *generation) addressedBy(endpoints []*link.Endpoint, build func([]netip.Addr) *set) addressed {
	a := addressed{build: build}
	all, places := make([]netip.Addr, 0, len(endpoints)), make([]placed, 0, len(endpoints))
	var sites []string
	for _, e := range endpoints {
		site := g.snapshot.SitesOf(e.Network).Of(e.Address)
		f := familyOf(e.Address)
		a.sites[f], sites = appendNew(a.sites[f], site), appendNew(sites, site)
		all, places = append(all, e.Address), append(places, placed{e.Address, site})
	}
	a.all = build(all)
	if len(a.sites[0]) < 2 && len(a.sites[1]) < 2 {
		return a
	}
	a.placed = places
	for _, site := range sites {
		n := nearby{at: a.sites}
		for f, all := range a.sites {
			if i := slices.Index(all, site); i >= 0 {
				n.at[f] = all[i : i+1]
			}
		}
		n.set = a.some(n.at)
		a.near = append(a.near, n)
	}
	return a
}

func appendNew(all []string, s string) []string {
	if slices.Contains(all, s) {
		return all
	}
	return append(all, s)
}

// some returns the records with the endpoints at some of the sites.
func (a *addressed) some(at families) *set {
	var some []netip.Addr
	for _, p := range a.placed {
		if slices.Contains(at[familyOf(p.address)], p.site) {
			some = append(some, p.address)
		}
	}
	return a.build(some)
}

// at returns the records for a client at a site: see [link.Nearest], which each family is asked for of itself.
func (p *Privatelink) at(site string, service link.ID, a *addressed) *set {
	if a.placed == nil {
		return a.all
	}
	var at families
	whole := true
	for f, sites := range a.sites {
		at[f] = link.Nearest(sites, site, func(site string) bool { return p.HealthyAt(service, site) })
		whole = whole && len(at[f]) == len(sites)
	}
	if whole {
		return a.all
	}
	for i := range a.near {
		if n := &a.near[i]; slices.Equal(n.at[0], at[0]) && slices.Equal(n.at[1], at[1]) {
			return n.set
		}
	}
	return a.some(at)
}

// siteKey is a site of a network.
type siteKey struct {
	network link.ID
	site    string
}

// viewKey names a view, so that two in which a name may have different answers have different names.
func (g *generation) viewKey(network link.ID, site string) string {
	if site == "" {
		return string(network)
	}
	return g.views()[siteKey{network, site}]
}

// namedViews returns the names of the views that sites make.
func (g *generation) namedViews() map[siteKey]string {
	views := make(map[siteKey]string)
	for n := range g.snapshot.Networks() {
		for _, s := range n.Sites {
			views[siteKey{n.ID, s.Site}] = string(n.ID) + "\x00" + s.Site
		}
	}
	return views
}

// turnTime is how long the addresses of a name keep their order. Within it an answer is given again without the plugins.
const turnTime = 100 * time.Millisecond

// turnAt returns what the order of addresses follows from at a time. It is no count: who asks in a steady rhythm would meet the same
// few turns again and again.
func turnAt(t time.Time) uint64 {
	x := uint64(t.UnixNano()/int64(turnTime)) * 0x9e3779b97f4a7c15 // the golden ratio, in 64 bits: neighbours end up far apart
	return x ^ x>>32
}

// turned returns the records of a section with those of the type asked for, its addresses, turned: each is the first one at times. The
// section given is shared and stays as it is.
func (p *Privatelink) turned(rrs []dns.RR, qtype uint16) []dns.RR {
	if p.Turn == nil || qtype != dns.TypeA && qtype != dns.TypeAAAA {
		return rrs
	}
	from := slices.IndexFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == qtype })
	if from < 0 || len(rrs)-from < 2 {
		return rrs
	}
	by := int(p.Turn() % uint64(len(rrs)-from))
	if by == 0 {
		return rrs
	}
	return slices.Concat(rrs[:from], rrs[from+by:], rrs[from:from+by])
}
