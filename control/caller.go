package control

import (
	"net/netip"
	"slices"

	"github.com/postern-link/postern/link"
)

// Caller is who asks for an operation, as the API has authenticated it. The zero Caller may nothing.
type Caller struct {
	Name     string // for the audit: "ci", "user@contoso.example"
	From     string // from where: an address
	Tenant   string // the tenant's name as the state has it, "" is the operator's
	TenantID string // the tenant's GUID
	Operator bool   // of the operator's tenant: may see the audit and the state of all
	Grants   []Grant
}

// Grant is a role in a subscription.
type Grant struct {
	Subscription string // lower case
	Role         Role
}

// Role is a set of rights.
type Role string

// The roles. Each may read.
const (
	Owner    Role = "owner"    // everything
	Consumer Role = "network"  // networks, endpoints and private zones
	Provider Role = "provider" // services and load balancers
	Approver Role = "approver" // decisions on the connections of services
	Reader   Role = "reader"
)

// Right is what a role may do in a subscription.
type Right uint8

// The rights.
const (
	Read     Right = 1 << iota // see its objects
	Connect                    // write networks, endpoints, private zones
	Publish                    // write services and load balancers
	Approve                    // decide on connections
	anyRight = Read | Connect | Publish | Approve
)

// Rights returns the rights of a role, none for an unknown one.
func (r Role) Rights() Right {
	switch r {
	case Owner:
		return anyRight
	case Consumer:
		return Read | Connect
	case Provider:
		return Read | Publish
	case Approver:
		return Read | Approve
	case Reader:
		return Read
	}
	return 0
}

// Rights returns what the caller may do in a subscription.
func (c Caller) Rights(subscription string) Right {
	var all Right
	for _, g := range c.Grants {
		if g.Subscription == subscription {
			all |= g.Role.Rights()
		}
	}
	return all
}

// Subscriptions returns those in which the caller has a role, in order.
func (c Caller) Subscriptions() []string {
	var all []string
	for _, g := range c.Grants {
		if g.Role.Rights() != 0 {
			all = append(all, g.Subscription)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Tenant is one tenant as the identities name it.
type Tenant struct {
	Name          string // as the state has it; "" for the operator's
	Title         string // as people read it
	ID            string // GUID
	Operator      bool
	Subscriptions []Subscription
	// Domains are the DNS names at or below which its services may publish names without proof.
	Domains []link.Name
	// Networks are the prefixes that its networks must lie within. Empty: any that is nobody else's.
	Networks []netip.Prefix
	// Targets are prefixes that its services may have targets in, though a rule forbids them: loopback,
	// the networks of others.
	Targets []netip.Prefix
}

// Subscription is what rights are granted for; it belongs to one tenant.
type Subscription struct {
	ID   string // lower case
	Name string
}

// Tenants is where [Control] looks up who owns what. Its answers may change at any time.
type Tenants interface {
	// Tenants returns all of them.
	Tenants() []Tenant
	// SubscriptionOwner returns the tenant that a subscription belongs to.
	SubscriptionOwner(subscription string) (Tenant, bool)
}
