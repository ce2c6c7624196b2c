package link

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func sitesOf(t testing.TB, list ...string) (all Sites) {
	t.Helper()
	for _, s := range list {
		p, err := ParseSitePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		if p.String() != s {
			t.Errorf("%s is written %s", s, p)
		}
		all = append(all, p)
	}
	return all
}

func TestSitesOf(t *testing.T) {
	s := sitesOf(t, "paris=10.1.0.0/16", "lyon=10.1.9.0/24", "lyon=fd00:1::/64", "paris=10.1.9.128/25")
	for _, tt := range []struct{ prefix, first, all string }{
		{"10.1.0.1/32", "paris", "paris"},
		{"10.1.9.1/32", "lyon", "lyon"},
		{"10.1.9.129/32", "paris", "paris"},
		{"fd00:1::9/128", "lyon", "lyon"},
		{"fd00:2::9/128", "", ""},
		{"10.2.0.1/32", "", ""},
		{"10.1.0.0/24", "paris", "paris"},
		{"10.1.9.0/24", "lyon", ""}, // half of it is in Paris
		{"10.1.9.0/25", "lyon", "lyon"},
		{"10.0.0.0/8", "", ""}, // no site has all of it
		{"0.0.0.0/0", "", ""},
	} {
		p := netip.MustParsePrefix(tt.prefix)
		if got := s.Of(p.Addr()); got != tt.first {
			t.Errorf("%s is at %q, want %q", p.Addr(), got, tt.first)
		}
		if got := s.OfAll(p); got != tt.all {
			t.Errorf("all of %s is at %q, want %q", p, got, tt.all)
		}
	}
	if got := Sites(nil).Of(netip.Addr{}); got != "" {
		t.Errorf("no address is at %q", got)
	}
}

func TestSitesAreChecked(t *testing.T) {
	for _, s := range []string{"", "paris", "=10.0.0.0/8", "a/b=10.0.0.0/8", "paris=10.0.0.1", "paris=10.0.0.1/8", "paris=::ffff:10.0.0.0/104", "-=10.0.0.0/8"} {
		if p, err := ParseSitePrefix(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v %v", s, p, err)
		}
	}
	if p, err := ParseSitePrefix("Paris=10.0.0.0/8"); err != nil || p.Site != "paris" {
		t.Errorf("%v %v", p, err)
	}
	many := make(Sites, MaxSites+1)
	for i := range many {
		many[i] = SitePrefix{"paris", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)}
	}
	for _, tt := range []struct {
		name, want string
		sites      Sites
	}{
		{"no two sites have one prefix", "is of site paris and of site lyon", sitesOf(t, "paris=10.0.0.0/8", "lyon=10.0.0.0/8")},
		{"upper case", "lower case", Sites{{"Paris", netip.MustParsePrefix("10.0.0.0/8")}}},
		{"no name", "site", Sites{{"", netip.MustParsePrefix("10.0.0.0/8")}}},
		{"no prefix", "no prefix", Sites{{"paris", netip.Prefix{}}}},
		{"too many", "64 are allowed", many},
	} {
		if err := tt.sites.check(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := many[:MaxSites].check(); err != nil {
		t.Error(err)
	}
}

func TestNearest(t *testing.T) {
	for _, tt := range []struct {
		name, sites, own, down, want string
	}{
		{"its own", "a b c", "b", "", "b"},
		{"its own, others down", "a b c", "b", "a c", "b"},
		{"its own is down", "a b c", "b", "b", "a c"},
		{"one other is left", "a b c", "b", "b c", "a"},
		{"all are down: its own stays (D23)", "a b c", "b", "a b c", "b"},
		{"all are down, none of them its own", "a b c", "d", "a b c", "a b c"},
		{"at no site", "a b c", "", "b", "a c"},
		{"endpoints at no site are nobody's own", "a - c", "", "a", "- c"},
		{"a site without endpoints", "a b", "c", "", "a b"},
		{"one site is never withdrawn", "a", "b", "a", "a"},
		{"no endpoint", "", "a", "", ""},
	} {
		words := func(s string) []string {
			all := strings.Fields(s)
			for i := range all {
				all[i] = strings.TrimPrefix(all[i], "-")
			}
			return all
		}
		got := Nearest(words(tt.sites), tt.own, func(site string) bool { return !slices.Contains(words(tt.down), site) })
		if !slices.Equal(got, words(tt.want)) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
