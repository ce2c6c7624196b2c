package armapi

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// Settings that Azure's types have no field for travel in tags, which every client can send. Their names
// begin with this. One that isn't known is refused: a typo in an access list must not go unnoticed.
const tagPrefix = "postern-"

// Where no tag says otherwise: most services that a name pins speak TLS on the port of HTTPS.
const defaultPort = 443

// setting is one tag of a kind of resource: it applies its value to an object.
type setting[T any] struct {
	name  string // without the prefix
	apply func(a *API, object T, value string) error
}

// applyTags applies the settings among tags. The error names the tag.
func applyTags[T any](a *API, settings []setting[T], tags map[string]string, object T) error {
	given := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		name, ours := strings.CutPrefix(strings.ToLower(key), tagPrefix)
		if !ours {
			continue
		}
		i := slices.IndexFunc(settings, func(s setting[T]) bool { return s.name == name })
		if i < 0 {
			return fmt.Errorf("tag %s: no such setting; there are %s", quote(key), settingNames(settings))
		}
		if given[name] {
			return fmt.Errorf("tag %s: given twice, in other letter case", quote(key))
		}
		given[name] = true
		if err := settings[i].apply(a, object, strings.TrimSpace(tags[key])); err != nil {
			return fmt.Errorf("tag %s: %w", quote(key), err)
		}
	}
	return nil
}

func settingNames[T any](settings []setting[T]) string {
	if len(settings) == 0 {
		return "none for this type"
	}
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = tagPrefix + s.name
	}
	return strings.Join(names, ", ")
}

// words are the parts of a tag's value: a tag has no lists, so spaces and commas part them.
func words(value string) []string {
	return strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' || c == ';' })
}

// networkSettings are the tags of a virtual network.
var networkSettings = []setting[*link.Network]{
	{"egress", func(a *API, n *link.Network, value string) error {
		n.Egress = nil
		for _, w := range words(value) {
			to, err := a.parseEgress(w)
			if err != nil {
				return err
			}
			n.Egress = append(n.Egress, to)
		}
		return nil
	}},
	{"sites", func(_ *API, n *link.Network, value string) (err error) {
		n.Sites, err = parseSites(value)
		return err
	}},
}

// endpointSettings are the tags of a private endpoint.
var endpointSettings = []setting[*link.Endpoint]{
	{"allow", func(_ *API, e *link.Endpoint, value string) error {
		e.Allow = nil
		for _, w := range words(value) {
			p, err := parsePrefix(w)
			if err != nil {
				return err
			}
			e.Allow = append(e.Allow, p)
		}
		return nil
	}},
}

// serviceSettings are the tags of a private link service.
var serviceSettings = []setting[*link.Service]{
	{"port", func(_ *API, v *link.Service, value string) error {
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("%s isn't a port, 1 to 65535", quote(value))
		}
		v.Port = uint16(port)
		return nil
	}},
	{"pin", func(_ *API, v *link.Service, value string) error {
		v.Pin = link.Pin(strings.ToLower(value))
		return oneOf(v.Pin, link.Pins()...)
	}},
	{"proxy-protocol", func(_ *API, v *link.Service, value string) error {
		v.ProxyProtocol = link.ProxyProtocol(strings.ToLower(value))
		return oneOf(v.ProxyProtocol, link.ProxyOff, link.ProxyV1, link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP)
	}},
	{"targets", func(_ *API, v *link.Service, value string) error {
		v.Targets, v.TargetNames = nil, nil
		for _, w := range words(value) {
			addr, name, err := parseTarget(w)
			switch {
			case err != nil:
				return err
			case addr.IsValid():
				v.Targets = append(v.Targets, link.Target{Addr: addr})
			default:
				v.TargetNames = append(v.TargetNames, name)
			}
		}
		return nil
	}},
	{"within", func(_ *API, v *link.Service, value string) error {
		v.Within = nil
		for _, w := range words(value) {
			p, err := parsePrefix(w)
			if err != nil {
				return err
			}
			v.Within = append(v.Within, p)
		}
		return nil
	}},
	{"sites", func(_ *API, v *link.Service, value string) (err error) {
		v.Sites, err = parseSites(value)
		return err
	}},
	{"max-connections", func(_ *API, v *link.Service, value string) (err error) {
		v.MaxConnections, err = connectionBound(value)
		return err
	}},
	{"max-per-consumer", func(_ *API, v *link.Service, value string) (err error) {
		v.MaxPerConsumer, err = connectionBound(value)
		return err
	}},
	{"reject", func(a *API, v *link.Service, value string) error {
		v.Reject = nil
		for _, w := range words(value) {
			p, err := a.parseParty(w)
			if err != nil {
				return err
			}
			v.Reject = append(v.Reject, p)
		}
		return nil
	}},
	{"idle-timeout", func(_ *API, v *link.Service, value string) error {
		d, err := time.ParseDuration(value) // the domain knows the bounds, which are those of the protocol
		if err != nil || d <= 0 {
			return fmt.Errorf("%s isn't a duration such as 300s", quote(value))
		}
		v.IdleTimeout = d
		return nil
	}},
	{"ech", func(_ *API, v *link.Service, value string) error {
		if strings.ToLower(value) != "allow" {
			return fmt.Errorf("%s: allow is allowed", quote(value))
		}
		v.ECHOuter = true
		return nil
	}},
	{"strict", func(_ *API, v *link.Service, value string) error {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%s is neither true nor false", quote(value))
		}
		v.Strict = on
		return nil
	}},
	{"protocol", func(_ *API, v *link.Service, value string) (err error) {
		v.Protocol, err = link.ParseProtocol(strings.ToLower(value))
		return err
	}},
	{"balance", func(_ *API, v *link.Service, value string) error {
		v.Balance = link.Balance(strings.ToLower(value))
		err := oneOf(v.Balance, link.Balances()...)
		if v.Balance == link.RoundRobin {
			v.Balance = "" // which is what is meant without a word
		}
		return err
	}},
	{"weights", func(_ *API, v *link.Service, value string) error {
		v.Weights, v.NameWeights = nil, nil
		for _, w := range words(value) {
			target, number, _ := strings.Cut(w, "=")
			addr, name, err := parseTarget(target)
			n, nerr := strconv.ParseUint(number, 10, 16)
			if err != nil || nerr != nil || n > link.MaxWeight {
				return fmt.Errorf("%s isn't ADDRESS:PORT=WEIGHT or NAME:PORT=WEIGHT with a weight of 0 to %d", quote(w), link.MaxWeight)
			}
			first := false
			if addr.IsValid() {
				first = weigh(&v.Weights, addr, int(n))
			} else {
				first = weigh(&v.NameWeights, name, int(n))
			}
			if !first {
				return fmt.Errorf("the weight of %s is given twice", quote(target))
			}
		}
		return nil
	}},
	{"probe", func(_ *API, v *link.Service, value string) (err error) {
		v.Probe, err = link.ParseProbe(value)
		return err
	}},
	{"max-per-target", func(_ *API, v *link.Service, value string) error {
		bounds := words(value)
		if len(bounds) == 0 || len(bounds) > 2 {
			return fmt.Errorf("%s isn't FLOWS, or FLOWS WAITING", quote(value))
		}
		for i, to := range []*int{&v.MaxPerTarget, &v.MaxWaiting} {
			n, err := strconv.ParseUint(bounds[min(i, len(bounds)-1)], 10, 31)
			if err != nil || n > link.MaxOfTarget {
				return fmt.Errorf("%s isn't a number of flows, 0 to %d", quote(bounds[min(i, len(bounds)-1)]), link.MaxOfTarget)
			}
			*to = int(n)
		}
		return nil
	}},
	{"warm", func(_ *API, v *link.Service, value string) (err error) {
		v.Warm, v.WarmAge, err = link.ParseWarm(strings.Join(words(value), " "))
		return err
	}},
	{"fallback", func(_ *API, v *link.Service, value string) error {
		if strings.ToLower(value) != "public" {
			return fmt.Errorf("%s: public is allowed", quote(value))
		}
		v.FallbackPublic = true
		return nil
	}},
}

// parseTarget reads ADDRESS:PORT or NAME:PORT; the other result is zero.
func parseTarget(s string) (netip.AddrPort, link.NamePort, error) {
	addr, name, err := link.ParseTarget(s)
	if err != nil || addr.IsValid() && (addr.Addr().Zone() != "" || addr.Port() == 0) {
		return addr, name, fmt.Errorf("%s isn't ADDRESS:PORT or NAME:PORT", quote(s))
	}
	return addr, name, nil
}

// parseSites reads SITE=PREFIX of each word.
func parseSites(value string) (sites link.Sites, err error) {
	for _, w := range words(value) {
		p, err := link.ParseSitePrefix(w)
		if err != nil {
			return nil, fmt.Errorf("%s isn't SITE=PREFIX with a whole prefix", quote(w))
		}
		sites = append(sites, p)
	}
	return sites, nil
}

// weigh notes the weight of a target and reports whether it had none.
func weigh[K comparable](weights *map[K]int, target K, n int) bool {
	if _, twice := (*weights)[target]; twice {
		return false
	}
	if *weights == nil {
		*weights = map[K]int{}
	}
	(*weights)[target] = n
	return true
}

// connectionBound reads a number of connections.
func connectionBound(value string) (int, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s isn't a number of connections; 0 is no bound", quote(value))
	}
	return int(n), nil
}

// oneOf returns an error that lists the allowed values unless v is one of them.
func oneOf[T ~string](v T, allowed ...T) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	all := make([]string, len(allowed))
	for i, a := range allowed {
		all[i] = string(a)
	}
	return fmt.Errorf("%s: %s are allowed", quote(string(v)), strings.Join(all, ", "))
}

// parseParty reads an entry of an access list: "*", the ID of a subscription as Azure has it, "tenant/NAME",
// or the ID of a virtual network.
func (a *API) parseParty(s string) (link.Party, error) {
	switch {
	case strings.HasPrefix(s, "/"):
		ref, err := a.reference("virtual network", s, typeNetwork)
		return link.Party(ref.ID), err
	case s != string(link.Anyone) && !strings.Contains(s, "/"):
		s = "subscription/" + s
	}
	return link.ParseParty(s)
}

// parseEgress reads an entry of an egress list: "*", "tenant/NAME", the ID of a private link service, or an alias.
func (a *API) parseEgress(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return strings.ToLower(s), nil // the domain judges it
	}
	ref, err := a.reference("private link service", s, typeService)
	return string(ref.ID), err
}
