package link

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Spread says how the flows of a service are spread over its targets. The zero Spread gives each target the same
// share, probes by connecting, and bounds nothing. It is a part of a service in the code alone: in a stored service its
// fields are the service's own, so that an older node keeps them.
type Spread struct {
	Balance Balance `json:"balance,omitempty"`
	// Weights are those of targets whose weight isn't 1. Of 0: drained, it gets no new flow, and live ones go on.
	// What is no target of the service doesn't count.
	Weights map[netip.AddrPort]int `json:"weights,omitempty"`
	Probe   Probe                  `json:"probe,omitzero"`
	// MaxPerTarget bounds the flows that a node has with one target at a time. 0: no bound.
	MaxPerTarget int `json:"maxPerTarget,omitempty"`
	// MaxWaiting bounds the flows that wait on a node, all targets being at that bound. 0: none waits.
	MaxWaiting int `json:"maxWaiting,omitempty"`
	// NameWeights are those of names, which each of their addresses has. An address that is a target more than once, written
	// down or by names, has the smallest of its weights.
	NameWeights map[NamePort]int `json:"nameWeights,omitempty"`
	// Warm is how many connections a node has ready with each target while the service is used, [CheckWarm] where it may. 0: none.
	Warm int `json:"warm,omitempty"`
	// WarmAge is how long one of them is of use, and for how long after a flow there are any. 0: [DefaultWarmAge].
	WarmAge time.Duration `json:"warmAge,omitempty"`
}

// Balance is how a target is chosen among those of a service. "" is [RoundRobin].
type Balance string

// The ways of choosing.
const (
	RoundRobin       Balance = "round-robin"       // one after the other
	LeastConnections Balance = "least-connections" // the one with the fewest flows for its weight
	SourceHash       Balance = "source-hash"       // the same one for the same client
)

// Balances returns the ways of choosing a target.
func Balances() []Balance { return []Balance{RoundRobin, LeastConnections, SourceHash} }

// Probe is how a node finds out whether a target of a service answers. The zero Probe connects.
type Probe struct {
	Kind ProbeKind `json:"kind,omitempty"`
	// Name is the server name of a [ProbeTLS]; "": the service's first name that is no pattern, if any.
	Name Name `json:"name,omitempty"`
	// Path is what a [ProbeHTTP] gets.
	Path string `json:"path,omitempty"`
	// Status is what it must be answered with; 0: 200 to 399.
	Status int `json:"status,omitempty"`
}

// ProbeKind is the kind of a probe. "" is [ProbeTCP].
type ProbeKind string

// The kinds of probes.
const (
	ProbeTCP  ProbeKind = "tcp"  // the connection is accepted
	ProbeTLS  ProbeKind = "tls"  // and a TLS handshake comes to its end, whatever the certificate says
	ProbeHTTP ProbeKind = "http" // and a GET, in clear, has the right status
)

// Bounds of a [Spread].
const (
	MaxWeight       = 1000
	MaxOfTarget     = 1_000_000 // flows, and as many that wait
	MaxProbePath    = 1024      // bytes
	minProbeStatus  = 200
	mostProbeStatus = 599
)

// Weight returns the weight of a target, 0 to [MaxWeight].
func (s *Spread) Weight(target netip.AddrPort) int {
	if w, ok := s.Weights[target]; ok {
		return w
	}
	return 1
}

// Drained reports whether a target gets no new flow.
func (s *Spread) Drained(target netip.AddrPort) bool { return s.Weight(target) == 0 }

func (s *Spread) check() error {
	switch s.Balance {
	case "", RoundRobin, LeastConnections, SourceHash:
	default:
		return fmt.Errorf("%w: balance %q: round-robin, least-connections and source-hash are allowed", ErrInvalid, clip(string(s.Balance)))
	}
	for target, w := range s.Weights {
		if w < 0 || w > MaxWeight {
			return fmt.Errorf("%w: weight %d of target %s, 0 to %d are allowed", ErrInvalid, w, target, MaxWeight)
		}
	}
	for name, w := range s.NameWeights {
		if w < 0 || w > MaxWeight {
			return fmt.Errorf("%w: weight %d of target %s, 0 to %d are allowed", ErrInvalid, w, name, MaxWeight)
		}
	}
	switch {
	case s.MaxPerTarget < 0 || s.MaxPerTarget > MaxOfTarget:
		return fmt.Errorf("%w: %d flows of a target, 0 to %d are allowed", ErrInvalid, s.MaxPerTarget, MaxOfTarget)
	case s.MaxWaiting < 0 || s.MaxWaiting > MaxOfTarget:
		return fmt.Errorf("%w: %d waiting flows, 0 to %d are allowed", ErrInvalid, s.MaxWaiting, MaxOfTarget)
	case s.MaxWaiting > 0 && s.MaxPerTarget == 0:
		return fmt.Errorf("%w: flows wait for a place where targets have a bound alone", ErrInvalid)
	}
	if err := checkWarm(s.Warm, s.WarmAge); err != nil {
		return err
	}
	return s.Probe.check()
}

func (p Probe) check() error {
	switch p.Kind {
	case "", ProbeTCP:
		if p != (Probe{Kind: p.Kind}) {
			return fmt.Errorf("%w: a probe that connects has no words of its own", ErrInvalid)
		}
	case ProbeTLS:
		if p.Path != "" || p.Status != 0 {
			return fmt.Errorf("%w: a TLS probe has neither path nor status", ErrInvalid)
		}
		if p.Name == "" {
			return nil
		}
		if n, err := ParseName(string(p.Name)); err != nil || n != p.Name {
			return fmt.Errorf("%w: server name %q of a TLS probe", ErrInvalid, clip(string(p.Name)))
		}
	case ProbeHTTP:
		if p.Name != "" {
			return fmt.Errorf("%w: an HTTP probe has no name of its own", ErrInvalid)
		}
		return p.checkHTTP()
	default:
		return fmt.Errorf("%w: probe %q: tcp, tls and http are allowed", ErrInvalid, clip(string(p.Kind)))
	}
	return nil
}

// checkHTTP refuses what isn't one path on one request line (RFC 9112, 3.2.1), and statuses that end no answer.
func (p Probe) checkHTTP() error {
	if err := CheckProbePath(p.Path); err != nil {
		return err
	}
	if p.Status != 0 && (p.Status < minProbeStatus || p.Status > mostProbeStatus) {
		return fmt.Errorf("%w: status %d of an HTTP probe, %d to %d are allowed", ErrInvalid, p.Status, minProbeStatus, mostProbeStatus)
	}
	return nil
}

// CheckProbePath returns an error wrapping [ErrInvalid] unless s can stand in the request of a [ProbeHTTP].
func CheckProbePath(s string) error {
	if !strings.HasPrefix(s, "/") || len(s) > MaxProbePath {
		return fmt.Errorf("%w: path %q of an HTTP probe: it begins with '/' and has at most %d bytes", ErrInvalid, clip(s), MaxProbePath)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '#' {
			return fmt.Errorf("%w: path %q of an HTTP probe: letters, digits and marks of ASCII but '#' are allowed", ErrInvalid, clip(s))
		}
	}
	return nil
}
