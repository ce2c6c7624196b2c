package armapi

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// nic is a network interface: a view of an endpoint or of a service, made and deleted with it. It is how
// clients learn an endpoint's address.
type nic struct {
	api      *API
	owner    link.ID // of the endpoint or service, in whose group it is
	facet    facet   // of the owner, with the name of the interface
	guid     string  // of the owner
	endpoint *link.Endpoint
	service  *link.Service
}

func (n *nic) id() string { return n.api.armID(typeInterface, n.owner, n.facet) }

// endpointInterface returns the interface of an endpoint.
func (a *API) endpointInterface(e *link.Endpoint) *nic {
	f := facetOf[endpointFacet](e.API)
	n := &nic{api: a, owner: e.ID, facet: f.facet, guid: guidOf(e, e.Facet), endpoint: e}
	n.facet.Name = cmp.Or(f.Interface, interfaceName(cmp.Or(f.Name, e.ID.Last()), n.guid))
	return n
}

// serviceInterface returns the interface of a service, which has its NAT addresses.
func (a *API) serviceInterface(v *link.Service) *nic {
	n := &nic{api: a, owner: v.ID, facet: facetOf[facet](v.API), guid: guidOf(v, v.Facet), service: v}
	n.facet.Name = interfaceName(cmp.Or(n.facet.Name, v.ID.Last()), n.guid)
	return n
}

func interfaceName(owner, guid string) string { return owner + ".nic." + guid }

// interfaceOwner returns the interface of a name in a group, nil where there is none.
func (a *API) interfaceOwner(s *link.Snapshot, sub, group, name string) *nic {
	if i := strings.LastIndex(strings.ToLower(name), ".nic."); i > 0 {
		if id, err := a.objectID(sub, group, name[:i]); err == nil {
			if e := s.Endpoint(id); e != nil && strings.EqualFold(a.endpointInterface(e).facet.Name, name) {
				return a.endpointInterface(e)
			}
			if v := s.Service(id); v != nil && strings.EqualFold(a.serviceInterface(v).facet.Name, name) {
				return a.serviceInterface(v)
			}
		}
	}
	for e := range s.Endpoints() { // one whose consumer chose the name
		if at, in, _ := a.place(e.ID); at == sub && strings.EqualFold(in, group) {
			if n := a.endpointInterface(e); strings.EqualFold(n.facet.Name, name) {
				return n
			}
		}
	}
	return nil
}

func (r *request) getInterface() (reply, error) {
	n := r.api.interfaceOwner(r.view(), r.subscription(), r.path("group"), r.path("interface"))
	if n == nil {
		return reply{}, r.notFound(typeInterface, r.path("interface"))
	}
	return ok(seal(n.show(r.view()))), nil
}

func (r *request) listInterfaces() (reply, error) {
	s := r.view()
	all := func(yield func(*nic) bool) {
		_ = eachInterface(s.Endpoints(), r.api.endpointInterface, yield) && eachInterface(s.Services(), r.api.serviceInterface, yield)
	}
	here := func(yield func(*nic) bool) {
		for n := range all {
			at, in, _ := r.api.place(n.owner)
			if at == r.subscription() && (r.path("group") == "" || strings.EqualFold(in, r.path("group"))) && !yield(n) {
				return
			}
		}
	}
	return page(r, here, (*nic).key, func(n *nic) (any, error) { return seal(n.show(s)), nil })
}

// key orders interfaces: those of endpoints first.
func (n *nic) key() string {
	if n.endpoint != nil {
		return "endpoint/" + string(n.owner)
	}
	return "service/" + string(n.owner)
}

func eachInterface[T any](owners iter.Seq[T], of func(T) *nic, yield func(*nic) bool) bool {
	for o := range owners {
		if !yield(of(o)) {
			return false
		}
	}
	return true
}

// show renders an interface.
func (n *nic) show(s *link.Snapshot) *networkInterface {
	f := n.facet
	f.Tags = nil
	v := &networkInterface{head: n.api.head(typeInterface, n.owner, f)}
	p := &v.Properties
	p.ProvisioningState, p.ResourceGUID, p.NicType = succeeded, n.guid, "Standard"
	switch {
	case n.endpoint != nil:
		e := n.endpoint
		p.PrivateEndpoint = &subResource{n.api.endpointID(e)}
		c := ipConfiguration{part: part{Name: "privateEndpointIpConfig." + n.guid}}
		c.Properties.Primary, c.Properties.Address, c.Properties.Version = true, e.Address.String(), versionOf(e.Address)
		c.Properties.Method = dynamic
		if len(facetOf[endpointFacet](e.API).Addresses) > 0 {
			c.Properties.Method = static
		}
		if network := s.Network(e.Network); network != nil {
			c.Properties.Subnet = &subResource{n.api.subnetID(network, e.Subnet)}
		}
		p.IPConfigurations = array[ipConfiguration]{c}
	default:
		p.PrivateLinkService = &subResource{n.api.serviceID(n.service)}
		p.IPConfigurations = slices.Clone(n.api.showServiceAddresses(s, n.service))
	}
	for i := range p.IPConfigurations {
		c := &p.IPConfigurations[i]
		c.ID, c.Type, c.Properties.ProvisioningState = v.ID+"/ipConfigurations/"+c.Name, typeInterfaceAddress, succeeded
	}
	return v
}
