package control

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// aim is a target as it is written: an address or a name. The other one is zero.
type aim struct {
	addr netip.AddrPort
	name link.NamePort
}

func parseAim(s string) (a aim, err error) {
	a.addr, a.name, err = link.ParseTarget(s)
	return a, err
}

// String returns ADDRESS:PORT or NAME:PORT.
func (a aim) String() string {
	if a.addr.IsValid() {
		return a.addr.String()
	}
	return a.name.String()
}

// parted returns the addresses and the names among targets, nil for none.
func parted(all []aim) (addrs []link.Target, names []link.NamePort) {
	for _, a := range all {
		if a.addr.IsValid() {
			addrs = append(addrs, link.Target{Addr: a.addr})
		} else {
			names = append(names, a.name)
		}
	}
	return addrs, names
}

// spread reads how the flows of a service are spread over its targets.
func (v *ManifestService) spread(targets []aim) (s link.Spread, err error) {
	s.Balance, s.MaxPerTarget, s.MaxWaiting = link.Balance(v.Balance), v.MaxPerTarget, v.MaxPerTarget
	if s.Balance == link.RoundRobin {
		s.Balance = "" // one word for the same thing, so that nothing changes between them
	}
	if v.MaxWaiting != nil {
		s.MaxWaiting = *v.MaxWaiting
	}
	if s.Warm = v.Warm; v.WarmAge != "" {
		if s.WarmAge, err = link.ParseWarmAge(v.WarmAge); err != nil {
			return s, err
		}
	}
	weights := make(map[aim]int, len(v.Weights))
	for _, text := range slices.Sorted(maps.Keys(v.Weights)) {
		at, err := target(text)
		if err != nil {
			return s, fmt.Errorf("%w: weight of a target: %w", link.ErrInvalid, err)
		}
		switch _, twice := weights[at]; {
		case twice:
			return s, fmt.Errorf("%w: the weight of target %s is given twice", link.ErrInvalid, at)
		case !slices.Contains(targets, at):
			return s, fmt.Errorf("%w: weight of %s, which is no target of the service", link.ErrInvalid, at)
		}
		weights[at] = v.Weights[text]
	}
	for at, w := range weights {
		switch {
		case w == 1: // which is what they weigh without a word
		case at.addr.IsValid():
			put(&s.Weights, at.addr, w)
		default:
			put(&s.NameWeights, at.name, w)
		}
	}
	s.Probe, err = link.ParseProbe(v.Probe)
	return s, err
}

// exportSpread writes what spread reads. Of weights those of targets are written: what others have doesn't count.
func (m *ManifestService) exportSpread(v *link.Service) {
	if m.Balance = string(v.Balance); v.Balance == link.RoundRobin {
		m.Balance = ""
	}
	for _, t := range v.Targets {
		if w := v.Weight(t.Addr); w != 1 {
			put(&m.Weights, t.Addr.String(), w)
		}
	}
	for _, n := range v.TargetNames {
		if w := v.NameWeight(n); w != 1 {
			put(&m.Weights, n.String(), w)
		}
	}
	if m.MaxPerTarget = v.MaxPerTarget; v.MaxPerTarget != 0 {
		waiting := v.MaxWaiting
		m.MaxWaiting = &waiting
	}
	if m.Warm = v.Warm; v.WarmAge != 0 {
		m.WarmAge = v.WarmAge.String()
	}
	if p := v.Probe.String(); p != string(link.ProbeTCP) {
		m.Probe = p
	}
}

// put is m[k] = n for a map that may be nil.
func put[K comparable](m *map[K]int, k K, n int) {
	if *m == nil {
		*m = make(map[K]int)
	}
	(*m)[k] = n
}

// protocol reads the protocol of a service.
func (v *ManifestService) protocol() (link.Protocol, error) {
	return link.ParseProtocol(strings.ToLower(v.Protocol))
}
