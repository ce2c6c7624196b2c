package link

import (
	"encoding"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// NamePort is a target that is written as a name: each address of the name, as a node finds it, with the port. Which
// those are is an observation of a node and no part of the state.
type NamePort struct {
	Name Name
	Port uint16
}

var (
	_ encoding.TextMarshaler   = NamePort{}
	_ encoding.TextUnmarshaler = (*NamePort)(nil)
)

// ParseNamePort returns s, "NAME:PORT", as a NamePort. A name that ends with a number is refused: it is an address that was
// miswritten. The error wraps [ErrInvalid].
func ParseNamePort(s string) (NamePort, error) {
	host, digits, ok := strings.Cut(s, ":")
	port, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || port == 0 || digits[0] == '0' || digits[0] == '+' {
		return NamePort{}, fmt.Errorf("%w: target %q is not NAME:PORT", ErrInvalid, clip(s))
	}
	name, err := ParseName(host)
	if err != nil {
		return NamePort{}, err
	}
	n := NamePort{name, uint16(port)}
	return n, n.check()
}

// String returns NAME:PORT.
func (n NamePort) String() string { return string(n.Name) + ":" + strconv.Itoa(int(n.Port)) }

// MarshalText implements [encoding.TextMarshaler].
func (n NamePort) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (n *NamePort) UnmarshalText(text []byte) (err error) {
	*n, err = ParseNamePort(string(text))
	return err
}

func (n NamePort) check() error {
	if p, err := ParseName(string(n.Name)); err != nil || p != n.Name {
		return fmt.Errorf("%w: target %q is not in canonical form", ErrInvalid, clip(string(n.Name)))
	}
	if last := n.Name[strings.LastIndexByte(string(n.Name), '.')+1:]; last[0] <= '9' && strings.Trim(string(last), "0123456789") == "" {
		return fmt.Errorf("%w: target %q ends with a number: it is neither an address nor a name", ErrInvalid, clip(string(n.Name)))
	}
	if n.Port == 0 {
		return fmt.Errorf("%w: target %s has no port", ErrInvalid, clip(string(n.Name)))
	}
	return nil
}

// ParseTarget returns s as an address with a port, or as a name with one; the other result is zero. A name begins with no
// bracket and isn't made of digits and dots alone. The error wraps [ErrInvalid].
func ParseTarget(s string) (netip.AddrPort, NamePort, error) {
	if addr, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), NamePort{}, nil
	}
	name, err := ParseNamePort(s)
	return netip.AddrPort{}, name, err
}

// NameWeight returns what each address of a name weighs, 0 to [MaxWeight].
func (s *Spread) NameWeight(n NamePort) int {
	if w, ok := s.NameWeights[n]; ok {
		return w
	}
	return 1
}

// TargetTexts returns what is written as targets: the addresses, then the names.
func (s *Service) TargetTexts() []string {
	all := make([]string, 0, len(s.Targets)+len(s.TargetNames))
	for _, t := range s.Targets {
		all = append(all, t.Addr.String())
	}
	for _, n := range s.TargetNames {
		all = append(all, n.String())
	}
	return all
}

// Lists reports whether the service has the target as an address that is written down, and not by a name.
func (s *Service) Lists(target netip.AddrPort) bool {
	for i := range s.Targets {
		if s.Targets[i].Addr == target {
			return true
		}
	}
	return false
}

// Sends reports whether a flow to a target may go on by what is written: the service lists the address, or has one of the
// names that the flow found it by.
func (s *Service) Sends(target netip.AddrPort, by []NamePort) bool {
	if s.Lists(target) {
		return true
	}
	for _, n := range by {
		if slices.Contains(s.TargetNames, n) {
			return true
		}
	}
	return false
}

// within reports whether names may lead to an address by what the service says of them.
func (s *Service) within(a netip.Addr) bool {
	return slices.ContainsFunc(s.Within, func(p netip.Prefix) bool { return p.Contains(a) })
}

// freeTo reports whether the rules that keep tenants from what is somebody else's don't hold for an address: the operator,
// or who was granted it, has written it down. What a name leads to nobody has written but who holds the name: it is as if
// it were a tenant's, unless it was granted or the operator's service says that its names may lead there.
func (s *Service) freeTo(a netip.Addr, found bool) bool {
	if found && s.Tenant == "" {
		return s.within(a)
	}
	return s.Tenant == "" || s.granted(a)
}

func (s *Service) checkTargetNames() error {
	for i, n := range s.TargetNames {
		if err := n.check(); err != nil {
			return err
		}
		if slices.Contains(s.TargetNames[:i], n) {
			return fmt.Errorf("%w: target %s is given twice", ErrInvalid, n)
		}
	}
	if len(s.Within) > MaxWithin {
		return fmt.Errorf("%w: names of targets within %d prefixes, %d are allowed", ErrInvalid, len(s.Within), MaxWithin)
	}
	for _, p := range s.Within {
		if err := CheckPrefix(p); err != nil {
			return fmt.Errorf("within: %w", err)
		}
	}
	return nil
}

// MaxWithin bounds [Service.Within].
const MaxWithin = 64

// leadsFurther reports whether names of the service may lead to what names of old couldn't: there is another name, or Within
// says less.
func (s *Service) leadsFurther(old *Service) bool {
	for _, n := range s.TargetNames {
		if !slices.Contains(old.TargetNames, n) {
			return true
		}
	}
	if len(s.TargetNames) == 0 || len(old.Within) == 0 && s.Tenant != "" {
		return false
	}
	inOld := func(p netip.Prefix) bool {
		return slices.ContainsFunc(old.Within, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	}
	return len(s.Within) == 0 && len(old.Within) > 0 || slices.ContainsFunc(s.Within, func(p netip.Prefix) bool { return !inOld(p) })
}
