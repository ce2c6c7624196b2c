package armapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

func (r *request) getService() (reply, error) {
	v, err := r.service()
	if err != nil {
		return reply{}, err
	}
	return ok(seal(r.api.showService(r.view(), v))), nil
}

// service returns the service of the path.
func (r *request) service() (*link.Service, error) {
	id, err := r.id("service")
	if err != nil {
		return nil, err
	}
	v := r.view().Service(id)
	if v == nil {
		return nil, r.notFound(typeService, r.path("service"))
	}
	return v, nil
}

// serviceView renders services of a snapshot.
func (r *request) serviceView(s *link.Snapshot) func(*link.Service) *privateLinkService {
	return func(v *link.Service) *privateLinkService { return r.api.showService(s, v) }
}

func (r *request) listServices() (reply, error) {
	return listed(r, r.view().ServicesFrom, func(v *link.Service) link.ID { return v.ID }, r.serviceView(r.view()))
}

func (r *request) putService() (reply, error) {
	id, err := r.id("service")
	if err != nil {
		return reply{}, err
	}
	var body privateLinkService
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditService(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Service) (*link.Service, error) {
		if err := unchanged(r, old, r.serviceView(s)); err != nil {
			return nil, err
		}
		var origin link.Origin
		if old != nil {
			origin = old.Origin
		}
		if err := r.writable(s, origin); err != nil {
			return nil, err
		}
		return r.writtenService(s, id, old, &body)
	})
	if err != nil {
		return reply{}, err
	}
	return created(res, seal(r.api.showService(res.Snapshot, res.Snapshot.Service(id)))), nil
}

// deleteService refuses to delete a service that has connections, unless the query says force=true: then
// they become Disconnected.
func (r *request) deleteService() (reply, error) {
	id, err := r.id("service")
	if err != nil {
		return reply{}, err
	}
	check := func(s *link.Snapshot, old *link.Service) error {
		if err := unchanged(r, old, r.serviceView(s)); err != nil || old == nil {
			return err
		}
		return r.writable(s, old.Origin)
	}
	var res control.Result
	if strings.EqualFold(r.query("force"), "true") {
		res, err = r.api.Control.ForceDeleteService(r.Context(), r.op(), id, check)
	} else {
		res, err = r.api.Control.EditService(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Service) (*link.Service, error) {
			return nil, check(s, old)
		})
	}
	if used, is := errors.AsType[*control.InUseError](err); is {
		return reply{}, r.stillConnected(used)
	}
	if err != nil {
		return reply{}, err
	}
	if r.dry() {
		return r.planned(res)
	}
	return deleted(res), nil
}

// stillConnected is the answer to the deletion of a service that has connections.
func (r *request) stillConnected(used *control.InUseError) error {
	noun := "private endpoint connection"
	if used.N > 1 {
		noun += "s"
	}
	return fail(http.StatusBadRequest, "PrivateLinkServiceWithPrivateEndpointConnectionsCannotBeDeleted",
		"Private link service %s cannot be deleted since it has %d %s. Please delete all private endpoint connections before deleting the private link service. It is %s.",
		r.path("service"), used.N, noun, used.Error())
}

// serviceID returns the ARM ID of a service.
func (a *API) serviceID(v *link.Service) string {
	return a.armID(typeService, v.ID, facetOf[facet](v.API))
}

// showService renders a service.
func (a *API) showService(s *link.Snapshot, v *link.Service) *privateLinkService {
	f := facetOf[serviceFacet](v.API)
	out := &privateLinkService{head: a.head(typeService, v.ID, f.facet)}
	p := &out.Properties
	p.ProvisioningState, p.ResourceGUID, p.Alias = succeeded, guidOf(v, v.Facet), v.Alias
	if p.Proxy = v.ProxyProtocol != link.ProxyOff; p.Proxy && f.Proxy != nil {
		p.Proxy = *f.Proxy
	}
	for _, n := range v.Names {
		p.FQDNs = append(p.FQDNs, string(n.Public))
	}
	p.Visibility.Subscriptions, p.AutoApproval.Subscriptions = f.Visible, f.AutoApprove
	if v.API == nil {
		p.Visibility.Subscriptions, p.AutoApproval.Subscriptions = shownParties(v.Visible), shownParties(v.AutoApprove)
	}
	if f.Balancer != "" {
		p.Frontends = array[subResource]{{a.frontendID(s, f.Balancer, f.Frontend)}}
	} else if len(v.Targets) > 0 {
		p.Destination = v.Targets[0].Addr.Addr().String()
	}
	p.IPConfigurations = a.showServiceAddresses(s, v)
	for i := range p.IPConfigurations {
		c := &p.IPConfigurations[i]
		c.ID, c.Type, c.Properties.ProvisioningState = out.ID+"/ipConfigurations/"+c.Name, typeServiceAddress, succeeded
	}
	p.AccessMode = f.AccessMode
	if p.AccessMode == "" {
		p.AccessMode = accessDefault
	}
	p.Interfaces = array[subResource]{{a.serviceInterface(v).id()}}
	for e := range connections(s, v.ID)("") {
		p.Connections = append(p.Connections, *a.showConnection(v, e))
	}
	return out
}

// shownParties writes an access list that the API didn't write: subscriptions as Azure has them.
func shownParties(list []link.Party) []string {
	all := make([]string, len(list))
	for i, p := range list {
		all[i] = strings.TrimPrefix(string(p), "subscription/")
	}
	return all
}

// showServiceAddresses renders the addresses that a service connects from. Those of the node itself are
// nobody's to know.
func (a *API) showServiceAddresses(s *link.Snapshot, v *link.Service) []ipConfiguration {
	var all []ipConfiguration
	for _, own := range facetOf[serviceFacet](v.API).IPConfigurations {
		c := ipConfiguration{part: part{Name: own.Name}}
		p := &c.Properties
		p.Primary, p.Version, p.Method = own.Primary, own.Version, dynamic
		if own.Address != "" {
			p.Method, p.Address = static, own.Address
		}
		if n := s.Network(own.Network); n != nil {
			p.Subnet = &subResource{a.subnetID(n, own.Subnet)}
		}
		all = append(all, c)
	}
	return all
}
