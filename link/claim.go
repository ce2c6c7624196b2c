package link

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// A public name belongs to the tenant whose service has it. The claims are the names of all services
// with their labels in reverse, each ended by a zero byte, then a one byte and the tenant; the value
// counts the services. All that is below a name then begins with its key.

// enterService adds what is computed from a service alone.
func (t *tx) enterService(v *Service) error {
	s := &t.next
	key := aliasKey(v.Alias)
	if other, ok := s.aliases.get(key); ok && other.ID != v.ID {
		return fmt.Errorf("%w: the alias is another service's", ErrConflict)
	}
	for _, n := range v.Names {
		if err := t.claim(n.Public, v.Tenant); err != nil {
			return err
		}
	}
	s.aliases.put(key, v)
	s.placed.put(placeKey(v.ID), v.ID)
	t.enterSuffixes(v, 1)
	t.enterBackends(v, 1)
	for _, target := range v.Targets {
		add(&s.targeted, addrKey(target.Addr.Addr()), 1)
	}
	for _, a := range v.NAT {
		add(&s.sources, addrKey(a), 1)
	}
	t.countObject(KindService, v.ID, 1)
	return nil
}

// leaveService takes away what enterService added.
func (t *tx) leaveService(v *Service) {
	s := &t.next
	for _, n := range v.Names {
		add(&s.claims, claimKey(n.Public, v.Tenant), -1)
	}
	s.aliases.drop(aliasKey(v.Alias))
	s.placed.drop(placeKey(v.ID))
	t.enterSuffixes(v, -1)
	t.enterBackends(v, -1)
	for _, target := range v.Targets {
		add(&s.targeted, addrKey(target.Addr.Addr()), -1)
	}
	for _, a := range v.NAT {
		add(&s.sources, addrKey(a), -1)
	}
	t.countObject(KindService, v.ID, -1)
}

// enterSuffixes counts the names of a service and what the public ones are right below, d is 1 or -1. A pattern is no name that somebody has.
func (t *tx) enterSuffixes(v *Service, d int) {
	for _, n := range v.Names {
		if parent := n.Public.Parent(); parent != "" {
			add(&t.next.suffixes, []byte(parent), d)
		}
		if n.Public[0] != '*' {
			add(&t.next.suffixes, []byte(n.Public), d)
		} else {
			add(&t.next.suffixes, otherKey("", []byte(n.Public)), d)
		}
		if n.Private != "" {
			add(&t.next.suffixes, otherKey("", []byte(n.Private)), d)
		}
	}
}

// IsSuffix reports whether a name in canonical form is a public name of a service, or what such a name is right below. It doesn't
// allocate.
func (s *Snapshot) IsSuffix(name []byte) bool { return some(&s.suffixes, name) }

// IsOther reports whether a name in canonical form is another one of a service than its public name: its private name, or one that a pattern of it, public or private,
// stands for. It is so in whatever network.
func (s *Snapshot) IsOther(name []byte) bool {
	if len(name) > 253 {
		return false
	}
	if some(&s.suffixes, otherKey("", name)) {
		return true
	}
	_, parent, ok := bytes.Cut(name, []byte("."))
	return ok && some(&s.suffixes, otherKey("*.", parent))
}

// otherKey is where the suffixes have such a name, which may begin with a pattern.
func otherKey(pattern string, name []byte) []byte {
	return slices.Concat([]byte{0}, []byte(pattern), name)
}

// claim takes a name for a tenant. It is refused where another tenant has the name, one below it, or,
// for a pattern or against one, a name that both stand for. Who that is isn't said.
func (t *tx) claim(name Name, tenant string) error {
	labels := reversed(name)
	conflict := t.claimed(labels, tenant)
	if pattern, wild := bytes.CutSuffix(labels, []byte("*\x00")); wild {
		conflict = conflict || t.claimed(pattern, tenant) && !t.onlyItself(pattern, tenant)
	} else if parent := name.Parent(); parent != "" {
		conflict = conflict || t.claimed(append(reversed(parent), "*\x00"...), tenant)
	}
	if conflict {
		return fmt.Errorf("%w: name %s, or one that it stands for, is in use", ErrConflict, name)
	}
	add(&t.next.claims, claimKey(name, tenant), 1)
	return nil
}

// claimed reports whether another tenant has a name that begins with the labels.
func (t *tx) claimed(labels []byte, tenant string) bool {
	for key := range t.next.claims.all(labels) {
		if owner := key[strings.IndexByte(key, 1)+1:]; owner != tenant {
			return true
		}
	}
	return false
}

// onlyItself reports whether the only names of other tenants that begin with the labels are the labels
// themselves, which a pattern below them doesn't stand for.
func (t *tx) onlyItself(labels []byte, tenant string) bool {
	for key := range t.next.claims.all(labels) {
		i := strings.IndexByte(key, 1)
		if key[i+1:] != tenant && i != len(labels) {
			return false
		}
	}
	return true
}

func claimKey(name Name, tenant string) []byte {
	return append(append(reversed(name), 1), tenant...)
}

// reversed returns the labels of a name from the last to the first, each ended by a zero byte.
func reversed(name Name) []byte {
	key := make([]byte, 0, len(name)+1)
	for rest := string(name); rest != ""; {
		i := strings.LastIndexByte(rest, '.')
		key = append(append(key, rest[i+1:]...), 0)
		rest = rest[:max(i, 0)]
	}
	return key
}

// ServiceByAlias returns the service of an alias in any letter case, nil where there is none. How long it
// takes says nothing about how much of the alias is right.
func (s *Snapshot) ServiceByAlias(alias string) *Service {
	v, _ := s.aliases.get(aliasKey(alias))
	return v
}

func aliasKey(alias string) []byte {
	sum := sha256.Sum256([]byte(strings.ToLower(alias)))
	return sum[:]
}

// Reaches reports whether the egress list of the network allows endpoints to the service, and by which
// entry; "own tenant" where there is no list.
func (n *Network) Reaches(v *Service) (rule string, ok bool) {
	if len(n.Egress) == 0 {
		return "own tenant", v.Tenant == n.Tenant
	}
	for _, e := range n.Egress {
		if e == string(Anyone) || e == string(v.ID) || strings.EqualFold(e, v.Alias) {
			return e, true
		}
		if tenant, is := strings.CutPrefix(e, "tenant/"); is && tenant == v.Tenant {
			return e, true
		}
	}
	return "not in the egress list", false
}

// MayHave reports whether the network of an endpoint may have it to the service, and by which rule: see
// [Network.Reaches]. A declaration that holds both halves has nothing to hide from itself.
func (s *Snapshot) MayHave(e *Endpoint, v *Service) (rule string, ok bool) {
	if v.Origin.Declaration != "" && v.Origin.Declaration == e.Origin.Declaration {
		return "declared together", true
	}
	n := s.Network(e.Network)
	if n == nil {
		return "the network is gone", false
	}
	return n.Reaches(v)
}
