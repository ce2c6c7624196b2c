package armapi

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// subnetFacet is what the API keeps of a subnet beside what the domain does.
type subnetFacet struct {
	Name   string `json:"name"`             // as first spelled
	Plural bool   `json:"plural,omitempty"` // the prefixes were written as a list
	// Whether policies apply to the endpoints and to the services in it, "Enabled" or "Disabled".
	EndpointPolicies string `json:"endpointPolicies,omitempty"`
	ServicePolicies  string `json:"servicePolicies,omitempty"`
}

// poolSubnet is the name of the subnet that the pools of a network of a Corefile are shown as, where they
// are called so.
const poolSubnet = "endpoints"

const (
	enabled  = "Enabled"
	disabled = "Disabled"
)

func (r *request) getSubnet() (reply, error) {
	n, err := r.network()
	if err != nil {
		return reply{}, err
	}
	body := r.api.showSubnet(n, r.path("subnet"))
	if body == nil {
		return reply{}, r.notFound(typeSubnet, r.path("network")+"/"+r.path("subnet"))
	}
	return ok(body), nil
}

func (r *request) listSubnets() (reply, error) {
	n, err := r.network()
	if err != nil {
		return reply{}, err
	}
	all := r.api.showSubnets(n)
	for i := range all {
		seal(&all[i])
	}
	return list(all), nil
}

func (r *request) putSubnet() (reply, error) {
	id, err := r.id("network")
	if err != nil {
		return reply{}, err
	}
	name, err := segment("subnet name", r.path("subnet"))
	if err != nil {
		return reply{}, err
	}
	var body subnet
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	isNew := false
	res, err := r.api.Control.EditNetwork(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Network) (*link.Network, error) {
		if old == nil {
			return nil, r.noParent(typeNetwork, r.path("network"))
		}
		current := r.api.showSubnet(old, name)
		if err := r.precondition(current); err != nil {
			return nil, err
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		isNew = current == nil
		n, f := *old, facetOf[networkFacet](old.API)
		n.Subnets, f.Subnets = slices.Clone(n.Subnets), slices.Clone(f.Subnets)
		own := subnetFacet{Name: r.path("subnet")}
		if i, ok := indexSubnets(f.Subnets)[name]; ok {
			own.Name = f.Subnets[i].Name
		}
		if err := setSubnet(&n, &f, name, own, &body); err != nil {
			return nil, err
		}
		var err error
		n.API, err = writeFacet(f)
		return &n, err
	})
	if err != nil {
		return reply{}, networkProblem(err)
	}
	res.Created = isNew
	return created(res, r.api.showSubnet(res.Snapshot.Network(id), name)), nil
}

func (r *request) deleteSubnet() (reply, error) {
	id, err := r.id("network")
	if err != nil {
		return reply{}, err
	}
	name := strings.ToLower(r.path("subnet"))
	res, err := r.api.Control.EditNetwork(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Network) (*link.Network, error) {
		if old == nil {
			return nil, r.precondition(nil)
		}
		if err := r.precondition(r.api.showSubnet(old, name)); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(old.Subnets, func(sub link.Subnet) bool { return sub.Name == name })
		if i < 0 {
			return old, nil
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		if err := r.subnetsFree(s, id, old.Subnets[i:i+1]); err != nil {
			return nil, err
		}
		n, f := *old, facetOf[networkFacet](old.API)
		n.Subnets = slices.Delete(slices.Clone(n.Subnets), i, i+1)
		f.Subnets = slices.DeleteFunc(slices.Clone(f.Subnets), func(sub subnetFacet) bool { return strings.EqualFold(sub.Name, name) })
		var err error
		n.API, err = writeFacet(f)
		return &n, err
	})
	if err != nil {
		return reply{}, networkProblem(err)
	}
	return deleted(res), nil
}

// setSubnet puts a subnet into a network, whose lists of subnets it may write into.
func setSubnet(n *link.Network, f *networkFacet, name string, own subnetFacet, body *subnet) error {
	sub, own, err := writtenSubnet(name, own, body)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(n.Subnets, func(o link.Subnet) bool { return o.Name == name }); i >= 0 {
		n.Subnets[i] = sub
	} else {
		n.Subnets = append(n.Subnets, sub)
	}
	if i, ok := indexSubnets(f.Subnets)[name]; ok {
		f.Subnets[i] = own
	} else {
		f.Subnets = append(f.Subnets, own)
	}
	return nil
}

// writtenSubnet returns a subnet as a body has it. own is the API's part as far as it is known.
func writtenSubnet(name string, own subnetFacet, body *subnet) (link.Subnet, subnetFacet, error) {
	sub, p := link.Subnet{Name: name}, &body.Properties
	given := p.AddressPrefixes
	if own.Plural = len(given) > 0; !own.Plural && p.AddressPrefix != "" {
		given = []string{p.AddressPrefix}
	}
	if own.Plural && p.AddressPrefix != "" && !slices.Equal(given, []string{p.AddressPrefix}) {
		return sub, own, invalid("properties.addressPrefix", "addressPrefixes says otherwise")
	}
	if len(given) == 0 {
		return sub, own, invalid("properties.addressPrefix", "subnet %s has none", quote(own.Name))
	}
	for _, text := range given {
		prefix, err := parsePrefix(text)
		if err != nil {
			return sub, own, invalid("properties.addressPrefix", "%v", err)
		}
		sub.Prefixes = append(sub.Prefixes, prefix)
	}
	var err error
	if own.EndpointPolicies, err = policies(p.EndpointPolicies, disabled, enabled, disabled, "NetworkSecurityGroupEnabled", "RouteTableEnabled"); err != nil {
		return sub, own, invalid("properties.privateEndpointNetworkPolicies", "%v", err)
	}
	if own.ServicePolicies, err = policies(p.ServicePolicies, enabled, enabled, disabled); err != nil {
		return sub, own, invalid("properties.privateLinkServiceNetworkPolicies", "%v", err)
	}
	return sub, own, nil
}

// policies returns the allowed spelling of a value, a default for "".
func policies(value, otherwise string, allowed ...string) (string, error) {
	if value == "" {
		return otherwise, nil
	}
	for _, a := range allowed {
		if strings.EqualFold(a, value) {
			return a, nil
		}
	}
	return "", oneOf(value, allowed...)
}

// subnetsFree returns an error that says who has addresses of one of some subnets, nil where nobody has. It
// reads every service, so it is for what happens seldom, and once for all of them.
func (r *request) subnetsFree(s *link.Snapshot, network link.ID, gone []link.Subnet) error {
	if len(gone) == 0 {
		return nil
	}
	users := make(map[string][]string, len(gone))
	for _, sub := range gone {
		users[sub.Name] = nil
	}
	use := func(subnet string, id func() string) {
		if list, is := users[subnet]; is {
			users[subnet] = append(list, id())
		}
	}
	for e := range s.EndpointsIn(network) {
		use(e.Subnet, func() string { return r.api.endpointID(e) })
	}
	for v := range s.Services() {
		if !bytes.Contains(v.API, []byte(network)) {
			continue
		}
		used := map[string]bool{}
		for _, c := range facetOf[serviceFacet](v.API).IPConfigurations {
			if c.Network == network && !used[c.Subnet] {
				used[c.Subnet] = true
				use(c.Subnet, func() string { return r.api.armID(typeService, v.ID, facetOf[facet](v.API)) })
			}
		}
	}
	for _, sub := range gone {
		if err := subnetInUse(sub.Name, users[sub.Name]); err != nil {
			return err
		}
	}
	return nil
}

func subnetInUse(name string, users []string) error {
	if len(users) == 0 {
		return nil
	}
	more := ""
	if n := len(users); n > 5 {
		users, more = users[:5], fmt.Sprintf(" and %d more", n-5)
	}
	return fail(http.StatusBadRequest, "InUseSubnetCannotBeDeleted", "Subnet %s is in use by %s%s and cannot be deleted.", name, strings.Join(users, ", "), more)
}

// subnetsOf is a network with the API's part of its subnets at hand: there may be thousands.
type subnetsOf struct {
	network *link.Network
	facet   networkFacet
	byName  map[string]int // in facet.Subnets, by name in lower case
}

// subnets returns the subnets of a network, which must be one of a snapshot. The last network asked for is kept:
// lists ask for the same one for each of its endpoints.
func (a *API) subnets(n *link.Network) *subnetsOf {
	if last := a.lastSubnets.Load(); last != nil && last.network == n {
		return last
	}
	v := &subnetsOf{network: n, facet: facetOf[networkFacet](n.API)}
	v.byName = indexSubnets(v.facet.Subnets)
	a.lastSubnets.Store(v)
	return v
}

func indexSubnets(all []subnetFacet) map[string]int {
	index := make(map[string]int, len(all))
	for i, f := range all {
		index[strings.ToLower(f.Name)] = i
	}
	return index
}

// of returns the API's part of a subnet.
func (v *subnetsOf) of(name string) subnetFacet {
	if i, ok := v.byName[strings.ToLower(name)]; ok {
		return v.facet.Subnets[i]
	}
	return subnetFacet{Name: name, EndpointPolicies: disabled, ServicePolicies: enabled}
}

// pool is the API's part of the subnet that the pools of a network are shown as.
var pool = subnetFacet{Name: poolSubnet, EndpointPolicies: disabled, ServicePolicies: disabled}

// showSubnets renders the subnets of a network, in its order.
func (a *API) showSubnets(n *link.Network) []subnet {
	v := a.subnets(n)
	all := make([]subnet, 0, len(n.Subnets)+1)
	for _, sub := range n.Subnets {
		all = append(all, a.renderSubnet(v, v.of(sub.Name), sub.Prefixes))
	}
	if len(n.Pools) > 0 {
		all = append(all, a.renderSubnet(v, pool, n.Pools))
	}
	return all
}

// showSubnet renders one subnet, sealed, nil where the network has none of the name.
func (a *API) showSubnet(n *link.Network, name string) *subnet {
	v := a.subnets(n)
	for _, sub := range n.Subnets {
		if strings.EqualFold(sub.Name, name) {
			body := a.renderSubnet(v, v.of(sub.Name), sub.Prefixes)
			return seal(&body)
		}
	}
	if len(n.Pools) > 0 && strings.EqualFold(poolSubnet, name) {
		body := a.renderSubnet(v, pool, n.Pools)
		return seal(&body)
	}
	return nil
}

func (a *API) renderSubnet(of *subnetsOf, own subnetFacet, prefixes []netip.Prefix) subnet {
	v := subnet{part: part{ID: a.armID(typeNetwork, of.network.ID, of.facet.facet) + "/subnets/" + own.Name, Name: own.Name, Type: typeSubnet}}
	p := &v.Properties
	p.ProvisioningState, p.EndpointPolicies, p.ServicePolicies = succeeded, own.EndpointPolicies, own.ServicePolicies
	if list := texts(prefixes); own.Plural || len(list) > 1 {
		p.AddressPrefixes = list
	} else {
		p.AddressPrefix = list[0]
	}
	return v
}

// subnetName returns the name of a subnet as endpoints in it have it: "" for that of the pools.
func subnetName(n *link.Network, name string) string {
	name = strings.ToLower(name)
	if name == poolSubnet && len(n.Pools) > 0 && !slices.ContainsFunc(n.Subnets, func(sub link.Subnet) bool { return sub.Name == name }) {
		return ""
	}
	return name
}

// subnetID returns the ARM ID of a subnet by its name, in its own spelling.
func (a *API) subnetID(n *link.Network, name string) string {
	v := a.subnets(n)
	return a.armID(typeNetwork, n.ID, v.facet.facet) + "/subnets/" + cmp.Or(v.of(name).Name, poolSubnet)
}
