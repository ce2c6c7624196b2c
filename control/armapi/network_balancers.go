package armapi

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/postern-link/postern/link"
)

func (r *request) getBalancer() (reply, error) {
	d, err := r.balancer()
	if err != nil {
		return reply{}, err
	}
	return ok(seal(r.api.showBalancer(d))), nil
}

// balancer returns the load balancer of the path.
func (r *request) balancer() (*link.Document, error) {
	id, err := r.id("balancer")
	if err != nil {
		return nil, err
	}
	d := r.view().Document(documentBalancer, id)
	if d == nil {
		return nil, r.notFound(typeLoadBalancer, r.path("balancer"))
	}
	return d, nil
}

func (r *request) listBalancers() (reply, error) {
	return listed(r, documentsOf(r.view(), documentBalancer), func(d *link.Document) link.ID { return d.ID }, r.api.showBalancer)
}

func (r *request) listFrontends() (reply, error) {
	d, err := r.balancer()
	if err != nil {
		return reply{}, err
	}
	return list(seal(r.api.showBalancer(d)).Properties.Frontends), nil
}

func (r *request) getFrontend() (reply, error) {
	d, err := r.balancer()
	if err != nil {
		return reply{}, err
	}
	for _, f := range seal(r.api.showBalancer(d)).Properties.Frontends {
		if strings.EqualFold(f.Name, r.path("frontend")) {
			return ok(&f), nil
		}
	}
	return reply{}, r.notFound(typeLoadBalancer, r.path("balancer")+"/frontendIPConfigurations/"+r.path("frontend"))
}

func (r *request) putBalancer() (reply, error) {
	id, err := r.id("balancer")
	if err != nil {
		return reply{}, err
	}
	var body loadBalancer
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	wanted, err := r.wantedBalancer(id, &body)
	if err != nil {
		return reply{}, err
	}
	return r.editBalancer(id, func(_ *link.Snapshot, old *link.Document) (balancerFacet, error) {
		f := wanted
		var had facet
		if old != nil {
			had = facetOf[facet](old.API)
		}
		var err error
		f.facet, err = r.common("balancer", had, body.head)
		return f, err
	})
}

// patchBalancer replaces the tags.
func (r *request) patchBalancer() (reply, error) {
	id, err := r.id("balancer")
	if err != nil {
		return reply{}, err
	}
	tags, err := r.patchedTags()
	if err != nil {
		return reply{}, err
	}
	return r.editBalancer(id, func(_ *link.Snapshot, old *link.Document) (balancerFacet, error) {
		if old == nil {
			return balancerFacet{}, r.notFound(typeLoadBalancer, r.path("balancer"))
		}
		f := facetOf[balancerFacet](old.API)
		f.Tags = tags
		return f, nil
	})
}

// editBalancer writes a load balancer, and with it the targets of the services that use it.
func (r *request) editBalancer(id link.ID, edit func(*link.Snapshot, *link.Document) (balancerFacet, error)) (reply, error) {
	res, err := r.api.Control.EditBalancer(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Document) (*link.Document, []link.Service, error) {
		if err := unchanged(r, old, r.api.showBalancer); err != nil {
			return nil, nil, err
		}
		if err := r.writable(s, link.Origin{}); err != nil {
			return nil, nil, err
		}
		f, err := edit(s, old)
		if err != nil {
			return nil, nil, err
		}
		if err := applyTags[*link.Document](r.api, nil, f.Tags, nil); err != nil {
			return nil, nil, invalid("tags", "%v", err)
		}
		d := link.Document{Type: documentBalancer, ID: id}
		if old != nil {
			d = *old
		}
		if d.API, err = writeFacet(f); err != nil {
			return nil, nil, err
		}
		services, err := r.retargeted(s, id, f.Properties)
		return &d, services, err
	})
	if err != nil {
		return reply{}, err
	}
	return created(res, seal(r.api.showBalancer(res.Snapshot.Document(documentBalancer, id)))), nil
}

func (r *request) deleteBalancer() (reply, error) {
	id, err := r.id("balancer")
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditBalancer(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Document) (*link.Document, []link.Service, error) {
		if err := unchanged(r, old, r.api.showBalancer); err != nil || old == nil {
			return nil, nil, err
		}
		for v := range servicesOn(s, id) {
			return nil, nil, fail(http.StatusBadRequest, "CannotDeleteLoadBalancerWithPrivateLinkService",
				"Cannot delete load balancer %s since it is referenced by private link service %s.", r.api.armID(typeLoadBalancer, id, facetOf[facet](old.API)), r.api.serviceID(v))
		}
		return nil, nil, nil
	})
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}

// servicesOn yields the services that have their targets from a load balancer, with what the API keeps
// of each. It looks at every service: load balancers change seldom.
func servicesOn(s *link.Snapshot, balancer link.ID) func(yield func(*link.Service, serviceFacet) bool) {
	return func(yield func(*link.Service, serviceFacet) bool) {
		for v := range s.Services() {
			if !bytes.Contains(v.API, []byte(balancer)) {
				continue
			}
			if f := facetOf[serviceFacet](v.API); f.Balancer == balancer && !yield(v, f) {
				return
			}
		}
	}
}

// retargeted returns the services of a load balancer whose port, protocol or targets it changes, as they shall be.
func (r *request) retargeted(s *link.Snapshot, balancer link.ID, p balancerProperties) ([]link.Service, error) {
	var all []link.Service
	for old, f := range servicesOn(s, balancer) {
		v := *old
		if err := r.retarget(&v, &f, p); err != nil {
			return nil, err
		}
		if v.Port != old.Port || v.Protocol != old.Protocol || !sameTargets(v.Targets, old.Targets) {
			all = append(all, v)
		}
	}
	return all, nil
}

func sameTargets(a, b []link.Target) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
