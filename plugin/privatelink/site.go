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
	all   *set     // with the addresses of all of them
	sites []string // that they are at, each once, in the order of their endpoints
	of    []place  // by site; nil where there is one
	build func([]netip.Addr) *set
}

// place is the endpoints at one site.
type place struct {
	addresses []netip.Addr
	set       *set
}

// addressedBy returns the name with the addresses of endpoints. Build makes the records of the name with some of them.
func (g *generation) addressedBy(endpoints []*link.Endpoint, build func([]netip.Addr) *set) addressed {
	a := addressed{build: build}
	all := make([]netip.Addr, 0, len(endpoints))
	var places []place
	for _, e := range endpoints {
		all = append(all, e.Address)
		site := ""
		if n := g.snapshot.Network(e.Network); n != nil {
			site = n.Sites.Of(e.Address)
		}
		i := slices.Index(a.sites, site)
		if i < 0 {
			i = len(a.sites)
			a.sites, places = append(a.sites, site), append(places, place{})
		}
		places[i].addresses = append(places[i].addresses, e.Address)
	}
	a.all = build(all)
	if len(places) > 1 {
		for i := range places {
			places[i].set = build(places[i].addresses)
		}
		a.of = places
	}
	return a
}

// at returns the records for a client at a site: see [link.Nearest].
func (p *Privatelink) at(site string, service link.ID, a *addressed) *set {
	if a.of == nil {
		return a.all
	}
	near := link.Nearest(a.sites, site, func(site string) bool { return p.HealthyAt(service, site) })
	switch len(near) {
	case len(a.sites):
		return a.all
	case 1:
		return a.of[slices.Index(a.sites, near[0])].set
	}
	var some []netip.Addr
	for _, site := range near {
		some = append(some, a.of[slices.Index(a.sites, site)].addresses...)
	}
	return a.build(some)
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
