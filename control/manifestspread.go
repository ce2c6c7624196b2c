package control

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// spread reads how the flows of a service are spread over its targets.
func (v *ManifestService) spread(targets []netip.AddrPort) (s link.Spread, err error) {
	s.Balance, s.MaxPerTarget, s.MaxWaiting = link.Balance(v.Balance), v.MaxPerTarget, v.MaxPerTarget
	if s.Balance == link.RoundRobin {
		s.Balance = "" // one word for the same thing, so that nothing changes between them
	}
	if v.MaxWaiting != nil {
		s.MaxWaiting = *v.MaxWaiting
	}
	for _, text := range slices.Sorted(maps.Keys(v.Weights)) {
		at, err := target(text)
		if err != nil {
			return s, fmt.Errorf("%w: weight of a target: %w", link.ErrInvalid, err)
		}
		switch _, twice := s.Weights[at]; {
		case twice:
			return s, fmt.Errorf("%w: the weight of target %s is given twice", link.ErrInvalid, at)
		case !slices.Contains(targets, at):
			return s, fmt.Errorf("%w: weight of %s, which is no target of the service", link.ErrInvalid, at)
		}
		if s.Weights == nil {
			s.Weights = make(map[netip.AddrPort]int, len(v.Weights))
		}
		s.Weights[at] = v.Weights[text]
	}
	maps.DeleteFunc(s.Weights, func(_ netip.AddrPort, w int) bool { return w == 1 }) // which is what they weigh without a word
	if len(s.Weights) == 0 {
		s.Weights = nil
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
			if m.Weights == nil {
				m.Weights = map[string]int{}
			}
			m.Weights[t.Addr.String()] = w
		}
	}
	if m.MaxPerTarget = v.MaxPerTarget; v.MaxPerTarget != 0 {
		waiting := v.MaxWaiting
		m.MaxWaiting = &waiting
	}
	if p := v.Probe.String(); p != string(link.ProbeTCP) {
		m.Probe = p
	}
}

// protocol reads the protocol of a service.
func (v *ManifestService) protocol() (link.Protocol, error) {
	return link.ParseProtocol(strings.ToLower(v.Protocol))
}
