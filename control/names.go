package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
)

const (
	proofLabel = link.ProofLabel + "." // before a domain, the name of the TXT record that proves it
	proofKey   = "postern-tenant="     // what the record says, followed by the tenant's GUID
	proofWait  = 5 * time.Second       // for all names of a service together
	proofDepth = 8                     // the most domains above one name that are looked at
	proofsAt   = 8                     // look-ups at once
	proofNames = 20                    // the most names of one write that are looked up
)

// proofs says what look-ups of names have come to: nil where the name is proven.
type proofs map[link.Name]error

// proveEdit looks up the proofs of the names that an edit adds to a service, if its tenant needs any. Edits
// that come to something else at the commit are refused there.
func (c *Control) proveEdit(ctx context.Context, id link.ID, edit func(*link.Snapshot, *link.Service) (*link.Service, error)) (proofs, error) {
	owner := c.owner(c.SubscriptionOf(id))
	if owner.Operator {
		return nil, nil
	}
	s, err := c.config.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	old := s.Service(id)
	v, err := edit(s, old)
	if err != nil || v == nil || len(v.Names) > c.config.Limits.NamesPerService {
		return nil, nil // the decision says so
	}
	names := unproven(owner, old, v)
	if len(names) > proofNames {
		return nil, tooManyProofs
	}
	return c.prove(ctx, owner, names), nil
}

// tooManyProofs is why nothing is looked up for a write.
var tooManyProofs = &LimitError{What: "names to prove at once", Limit: proofNames}

// unproven returns the names that a service gets and that its tenant must prove.
func unproven(owner Tenant, old, now *link.Service) []link.Name {
	var names []link.Name
	for _, n := range now.Names {
		if !hasName(old, n.Public) && !owner.has(n.Public) && checkName(n.Public) == nil {
			names = append(names, n.Public)
		}
	}
	return names
}

// prove looks up the proofs of names for a tenant. A domain that the operator gave to another has none, and
// the answer doesn't tell: it is looked up as well.
func (c *Control) prove(ctx context.Context, owner Tenant, names []link.Name) proofs {
	ctx, cancel := context.WithTimeout(ctx, proofWait)
	defer cancel()
	found := c.lookUp(ctx, owner, candidates(names))
	p := proofs{}
	for _, n := range names {
		p[n] = notProven(owner, n)
		given := c.given(owner, n)
		var unsure *net.DNSError
		for _, d := range above(n) {
			if found[d] == nil && !given {
				p[n] = nil
				break
			}
			if errors.As(found[d], &unsure) && !unsure.IsNotFound {
				p[n] = fmt.Errorf("%w; %w", p[n], unsure)
			}
		}
	}
	return p
}

// notProven is the error for a name without a proof.
func notProven(owner Tenant, n link.Name) error {
	return fmt.Errorf("%w: name %s: make a TXT record at %s%s, or at the same label of a domain above it, that says %q",
		ErrUnproven, n, proofLabel, domain(n), proofKey+strings.ToLower(owner.ID))
}

// given reports whether the operator gave the domain of a name to a tenant other than its owner. What DNS says
// of it is nothing against that.
func (c *Control) given(owner Tenant, n link.Name) bool {
	return slices.ContainsFunc(c.config.Tenants.Tenants(), func(t Tenant) bool {
		return t.Name != owner.Name && (t.has(n) || slices.ContainsFunc(t.Domains, func(d link.Name) bool {
			return n != domain(n) && d.Parent() == domain(n) // a pattern over it
		}))
	})
}

// lookUp returns for each domain nil where a TXT record proves it to be the tenant's, else why it isn't.
func (c *Control) lookUp(ctx context.Context, owner Tenant, domains []link.Name) map[link.Name]error {
	var (
		mu    sync.Mutex
		wait  sync.WaitGroup
		found = make(map[link.Name]error, len(domains))
		slots = make(chan struct{}, proofsAt)
	)
	for _, d := range domains {
		slots <- struct{}{} // each look-up ends with ctx
		wait.Go(func() {
			defer func() { <-slots }()
			err := c.proven(ctx, owner, d)
			mu.Lock()
			defer mu.Unlock()
			found[d] = err
		})
	}
	wait.Wait()
	return found
}

// proven returns nil where a TXT record of a domain names the tenant.
func (c *Control) proven(ctx context.Context, owner Tenant, d link.Name) error {
	records, err := c.config.Resolver.LookupTXT(ctx, proofLabel+string(d)+".")
	if err != nil {
		return err
	}
	for _, r := range records {
		if owner.ID != "" && strings.EqualFold(strings.TrimSpace(r), proofKey+owner.ID) {
			return nil
		}
	}
	return ErrUnproven
}

// candidates returns the domains that prove one of the names.
func candidates(names []link.Name) []link.Name {
	var all []link.Name
	for _, n := range names {
		all = append(all, above(n)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// above returns the domain of a name and those above it with at least two labels.
func above(n link.Name) []link.Name {
	var all []link.Name
	for d := domain(n); strings.Contains(string(d), ".") && len(all) < proofDepth; d = d.Parent() {
		all = append(all, d)
	}
	return all
}

// domain returns a name, and of a pattern the name that it is below.
func domain(n link.Name) link.Name { return link.Name(strings.TrimPrefix(string(n), "*.")) }

// has reports whether a name is at or below one of the tenant's domains.
func (t Tenant) has(n link.Name) bool {
	return slices.ContainsFunc(t.Domains, func(d link.Name) bool {
		return domain(n) == d || strings.HasSuffix(string(domain(n)), "."+string(d))
	})
}

func hasName(v *link.Service, public link.Name) bool {
	return v != nil && slices.ContainsFunc(v.Names, func(n link.ResourceName) bool { return n.Public == public })
}

// checkName returns an error unless a service of the API may have the name.
func checkName(n link.Name) error {
	if p, err := link.ParsePattern(string(n)); err != nil {
		return err
	} else if p != n {
		return fmt.Errorf("%w: name %q is not in canonical form", link.ErrInvalid, n)
	}
	if !strings.Contains(string(domain(n)), ".") {
		return fmt.Errorf("%w: name %s: at least two labels are needed", link.ErrInvalid, n)
	}
	return nil
}

// spell refuses names that a service may not have and gives the others their private half. A name that it
// has already keeps the one it got then.
func (c *Control) spell(owner Tenant, old, now *link.Service, p proofs) error {
	names := now.Names
	now.Names = make([]link.ResourceName, len(names))
	for i, n := range names {
		if hasName(old, n.Public) {
			had := slices.IndexFunc(old.Names, func(o link.ResourceName) bool { return o.Public == n.Public })
			now.Names[i] = old.Names[had]
			continue
		}
		if err := checkName(n.Public); err != nil {
			return err
		}
		if zone := c.config.Zones.Zone([]byte(domain(n.Public))); zone != "" {
			return fmt.Errorf("%w: name %s is inside the privatelink zone %s; give the public name, its private one follows", link.ErrInvalid, n.Public, zone)
		}
		if !owner.Operator && !owner.has(n.Public) {
			switch err, looked := p[n.Public]; {
			case !looked:
				return fmt.Errorf("%w: name %s wasn't looked up: ask again", ErrUnproven, n.Public)
			case err != nil:
				return err
			case c.given(owner, n.Public): // meanwhile
				return notProven(owner, n.Public)
			}
		}
		now.Names[i] = c.config.Zones.Resource(n.Public)
	}
	if len(names) == 0 {
		now.Names = nil
	}
	return nil
}
