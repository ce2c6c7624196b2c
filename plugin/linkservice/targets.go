package linkservice

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

// written is a target as a Corefile has it: an address or a name, the other one is zero.
type written struct {
	addr netip.AddrPort
	name link.NamePort
}

func (w written) String() string {
	if w.addr.IsValid() {
		return w.addr.String()
	}
	return w.name.String()
}

func (w written) port() uint16 {
	if w.addr.IsValid() {
		return w.addr.Port()
	}
	return w.name.Port
}

// writtenOf returns the targets of a service: the addresses, then the names.
func writtenOf(s *link.Service) (all []written) {
	for _, t := range s.Targets {
		all = append(all, written{addr: t.Addr})
	}
	for _, n := range s.TargetNames {
		all = append(all, written{name: n})
	}
	return all
}

// targets adds to the targets, which may stand on several lines, each with its weight at the end.
func targets(s *link.Service, args []string) error {
	weight := 1
	if last := args[len(args)-1]; strings.HasPrefix(last, weightPrefix) {
		if args = args[:len(args)-1]; len(args) == 0 {
			return fmt.Errorf("%s has no target in front of it", block.Quote(last))
		}
		var err error
		if weight, err = block.Int(last[len(weightPrefix):], 0, link.MaxWeight); err != nil {
			return fmt.Errorf("weight: %w", err)
		}
	}
	list, err := block.List(args, target)
	if err != nil {
		return err
	}
	all := writtenOf(s)
	for _, t := range list {
		if slices.Contains(all, t) {
			return fmt.Errorf("%s is given twice", t)
		}
		t.add(s, weight)
	}
	return nil
}

func (w written) add(s *link.Service, weight int) {
	if w.addr.IsValid() {
		s.Targets = append(s.Targets, link.Target{Addr: w.addr})
	} else {
		s.TargetNames = append(s.TargetNames, w.name)
	}
	switch {
	case weight == 1:
	case w.addr.IsValid():
		put(&s.Weights, w.addr, weight)
	default:
		put(&s.NameWeights, w.name, weight)
	}
}

// put is m[k] = v for a map that may be nil.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

// weightPrefix begins the word behind the targets of a line that says what they weigh.
const weightPrefix = "weight="

func target(s string) (written, error) {
	if strings.HasPrefix(s, weightPrefix) {
		return written{}, fmt.Errorf("%s stands at the end of a line, behind the targets that have it", block.Quote(s))
	}
	if host, _, ok := strings.Cut(s, ":"); ok && strings.Trim(host, "0123456789.") != "" && !strings.HasPrefix(host, "[") {
		name, err := link.ParseNamePort(s)
		return written{name: name}, block.Plain(err)
	}
	if _, err := netip.ParseAddrPort(s); err != nil {
		return written{}, fmt.Errorf("%s is not an address or name with a port; they look like 10.20.0.4:1433, [fd00::4]:1433 or db.example.com:1433", block.Quote(s))
	}
	ap, err := block.AddrPort(s)
	if err != nil {
		return written{}, err
	}
	if a := ap.Addr(); a.IsUnspecified() || a.IsMulticast() {
		return written{}, fmt.Errorf("%s is not an address to connect to", ap)
	}
	return written{addr: ap}, nil
}
