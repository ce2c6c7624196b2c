package link

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Sites says which addresses are at which site, a place that others are farther from: one network and one service may have
// several. The longest prefix decides. What no prefix has is at no site, "".
type Sites []SitePrefix

// SitePrefix is a part of a site.
type SitePrefix struct {
	Site   string       `json:"site"` // lower case, a segment of an ID
	Prefix netip.Prefix `json:"prefix"`
}

// MaxSites bounds the prefixes of [Sites].
const MaxSites = 64

// ParseSite returns s as the name of a site. The error wraps [ErrInvalid].
func ParseSite(s string) (string, error) {
	id, err := ParseID(s)
	if err != nil || strings.Contains(s, "/") {
		return "", fmt.Errorf("%w: site %q: letters, digits, '.', '_' and '-' are allowed, a letter or digit first", ErrInvalid, clip(s))
	}
	return string(id), nil
}

// ParseSitePrefix returns s, "SITE=PREFIX", as a part of a site. The error wraps [ErrInvalid].
func ParseSitePrefix(s string) (SitePrefix, error) {
	name, text, ok := strings.Cut(s, "=")
	p, err := netip.ParsePrefix(text)
	if !ok || err != nil {
		return SitePrefix{}, fmt.Errorf("%w: %q is not SITE=PREFIX", ErrInvalid, clip(s))
	}
	if name, err = ParseSite(name); err != nil {
		return SitePrefix{}, err
	}
	return SitePrefix{name, p}, CheckPrefix(p)
}

// String returns SITE=PREFIX.
func (p SitePrefix) String() string { return p.Site + "=" + p.Prefix.String() }

// Of returns the site that an address is at, "" for none.
func (s Sites) Of(a netip.Addr) (site string) {
	best := -1
	for i := range s {
		if p := s[i].Prefix; p.Bits() > best && p.Contains(a) {
			site, best = s[i].Site, p.Bits()
		}
	}
	return site
}

// OfAll returns the site that all addresses of a prefix are at, "" where there is none.
func (s Sites) OfAll(all netip.Prefix) (site string) {
	best := -1
	for i := range s {
		if p := s[i].Prefix; p.Bits() > best && p.Bits() <= all.Bits() && p.Contains(all.Addr()) {
			site, best = s[i].Site, p.Bits()
		}
	}
	for i := range s {
		if p := s[i].Prefix; p.Bits() > all.Bits() && all.Contains(p.Addr()) && s[i].Site != site {
			return "" // a part of it is elsewhere
		}
	}
	return site
}

// Longest returns how many bits the longest prefix within another one has, 0 where there is none.
func (s Sites) Longest(within netip.Prefix) (bits int) {
	for i := range s {
		if p := s[i].Prefix; p.Bits() >= within.Bits() && within.Contains(p.Addr()) {
			bits = max(bits, p.Bits())
		}
	}
	return bits
}

func (s Sites) check() error {
	if len(s) > MaxSites {
		return fmt.Errorf("%w: %d prefixes of sites, %d are allowed", ErrInvalid, len(s), MaxSites)
	}
	for i, p := range s {
		if name, err := ParseSite(p.Site); err != nil {
			return err
		} else if name != p.Site {
			return fmt.Errorf("%w: site %q is not in lower case", ErrInvalid, clip(p.Site))
		}
		if err := CheckPrefix(p.Prefix); err != nil {
			return fmt.Errorf("site %s: %w", p.Site, err)
		}
		if j := slices.IndexFunc(s[:i], func(q SitePrefix) bool { return q.Prefix == p.Prefix }); j >= 0 {
			return fmt.Errorf("%w: prefix %s is of site %s and of site %s", ErrInvalid, p.Prefix, s[j].Site, p.Site)
		}
	}
	return nil
}

// Nearest returns at which sites the endpoints of a service are that answer a client at the site own, "" for none. Sites are
// those that the service has endpoints of one family of addresses at, each once, with "" for endpoints at none. A client gets the ones at its own site; where those
// aren't healthy, all that are; and where none is, those at its own again, or all: the last endpoint of a name is never withdrawn,
// for the public address would take its place.
func Nearest(sites []string, own string, healthy func(site string) bool) []string {
	if len(sites) < 2 {
		return sites
	}
	fallback := sites
	if i := slices.Index(sites, own); i >= 0 && own != "" {
		if fallback = sites[i : i+1]; healthy(own) {
			return fallback
		}
	}
	var some []string
	for _, site := range sites {
		if healthy(site) {
			some = append(some, site)
		}
	}
	if len(some) == 0 {
		return fallback
	}
	return some
}
