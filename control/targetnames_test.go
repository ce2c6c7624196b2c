package control

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// What is said of names: the operator sees all, a provider what is its own, and nobody else's.
func TestTargetNamesInWords(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	a, b, local := netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("127.0.0.1")
	target := link.NamePort{Name: "db.example", Port: 443}
	for name, tt := range map[string]struct {
		name               TargetName
		operator, provider string
	}{
		"found":      {TargetName{Addrs: []netip.Addr{a, b}, At: at, Looked: true}, "10.0.0.4, 10.0.0.5", "10.0.0.4, 10.0.0.5"},
		"not yet":    {TargetName{}, "not looked up yet", "not looked up yet"},
		"never":      {TargetName{Looked: true, Err: errors.New("ask 10.9.9.9:53: no")}, "not found: ask 10.9.9.9:53: no", "not found"},
		"not now":    {TargetName{Addrs: []netip.Addr{a}, At: at, Looked: true, Err: errors.New("no")}, "10.0.0.4, not found: no, last 2027-01-15T08:00:00Z", "10.0.0.4, not found, last 2027-01-15T08:00:00Z"},
		"refused":    {TargetName{Looked: true, At: at, Refused: map[netip.Addr]string{local: "loopback"}}, "127.0.0.1 refused: loopback", "an address refused: loopback"},
		"another's":  {TargetName{Looked: true, At: at, Refused: map[netip.Addr]string{a: link.TargetIsAnothers, b: link.TargetIsPool}}, "10.0.0.4 refused: " + link.TargetIsAnothers + ", 10.0.0.5 refused: " + link.TargetIsPool, "an address refused: " + notYours},
		"not at all": {TargetName{Looked: true}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tt.name.Target = target
			for want, sees := range map[string]scope{"operator": {all: true}, "provider": {subscription: "s1"}} {
				said := map[string]string{"operator": tt.operator, "provider": tt.provider}[want]
				if got := tt.name.words(sees, "s1/g/svc", nil); got != "db.example:443 ("+said+")" {
					t.Errorf("the %s is told %s, want %s", want, got, said)
				}
			}
		})
	}
}

// Why a service sends nowhere.
func TestAims(t *testing.T) {
	s := link.Empty()
	v := &link.Service{ID: "svc", TargetNames: []link.NamePort{{Name: "db.example", Port: 443}}}
	for name, tt := range map[string]struct {
		names []TargetName
		none  string
	}{
		"not looked up here": {nil, ""},
		"found":              {[]TargetName{{Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.4")}, Looked: true}}, ""},
		"not found":          {[]TargetName{{Looked: true, Err: errors.New("no")}}, "none is found"},
		"refused":            {[]TargetName{{Looked: true, Refused: map[netip.Addr]string{netip.MustParseAddr("127.0.0.1"): "loopback"}}}, "none is allowed: loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Control{config: Config{TargetNames: func(link.ID) []TargetName { return tt.names }}}
			list, none := c.aims(s, v, link.Ground{}, scope{all: true}, nil)
			if none != tt.none || len(list) != 1 || tt.names == nil && !strings.HasPrefix(list[0], "db.example:443") {
				t.Errorf("%q, %q", list, none)
			}
		})
	}
}
