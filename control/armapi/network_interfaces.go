package armapi

import (
	"bytes"
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
	prefix := sub + "/" + strings.ToLower(group) + "/"
	for e := range s.EndpointsFrom(prefix, "") { // one whose consumer chose the name
		if bytes.Contains(e.API, []byte(`"interface":`)) && strings.EqualFold(facetOf[endpointFacet](e.API).Interface, name) {
			return a.endpointInterface(e)
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
	all := func(after string) iter.Seq[*nic] {
		return func(yield func(*nic) bool) {
			_ = eachInterface(r, after, link.KindEndpoint, s.EndpointsFrom, func(e *link.Endpoint) link.ID { return e.ID }, r.api.endpointInterface, yield) &&
				eachInterface(r, after, link.KindService, s.ServicesFrom, func(v *link.Service) link.ID { return v.ID }, r.api.serviceInterface, yield)
		}
	}
	return page(r, all, (*nic).key, func(n *nic) (any, error) { return seal(n.show(s)), nil })
}

// key orders interfaces: those of endpoints first.
func (n *nic) key() string {
	kind := link.KindService
	if n.endpoint != nil {
		kind = link.KindEndpoint
	}
	return string(kind) + "/" + string(n.owner)
}

// eachInterface passes on the interfaces, behind a key, of the objects of a kind that the path of the
// request has, and reports whether yield wants more.
func eachInterface[T any](r *request, after string, kind link.Kind, from seek[T], id func(T) link.ID, of func(T) *nic, yield func(*nic) bool) bool {
	at, left := startOf(after, kind)
	if !left {
		return true
	}
	for o := range objects(r.api, r.subscription(), r.path("group"), from, id)(at) {
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
