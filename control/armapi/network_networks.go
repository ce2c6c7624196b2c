package armapi

import (
	"slices"

	"github.com/postern-link/postern/link"
)

// networkFacet is what the API keeps of a network beside what the domain does.
type networkFacet struct {
	facet
	Subnets []subnetFacet `json:"subnets,omitempty"`
}

func (r *request) getNetwork() (reply, error) {
	n, err := r.network()
	if err != nil {
		return reply{}, err
	}
	return ok(seal(r.api.showNetwork(n))), nil
}

// network returns the network of the path.
func (r *request) network() (*link.Network, error) {
	id, err := r.id("network")
	if err != nil {
		return nil, err
	}
	n := r.view().Network(id)
	if n == nil {
		return nil, r.notFound(typeNetwork, r.path("network"))
	}
	return n, nil
}

func (r *request) listNetworks() (reply, error) {
	return listed(r, r.view().NetworksFrom, func(n *link.Network) link.ID { return n.ID }, r.api.showNetwork)
}

func (r *request) putNetwork() (reply, error) {
	id, err := r.id("network")
	if err != nil {
		return reply{}, err
	}
	var body virtualNetwork
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditNetwork(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Network) (*link.Network, error) {
		if err := unchanged(r, old, r.api.showNetwork); err != nil {
			return nil, err
		}
		if err := r.writable(s, originOf(old)); err != nil {
			return nil, err
		}
		return r.writtenNetwork(s, id, old, &body)
	})
	if err != nil {
		return reply{}, networkProblem(err)
	}
	return created(res, seal(r.api.showNetwork(res.Snapshot.Network(id)))), nil
}

// writtenNetwork returns the network that a PUT asks for. Subnets that the body says nothing of stay: a
// client that doesn't know them must not delete them.
func (r *request) writtenNetwork(s *link.Snapshot, id link.ID, old *link.Network, body *virtualNetwork) (*link.Network, error) {
	n := link.Network{ID: id}
	if old != nil {
		n = *old
	}
	f := facetOf[networkFacet](n.API)
	common, err := r.common("network", f.facet, body.head)
	if err != nil {
		return nil, err
	}
	f.facet = common
	n.Prefixes = nil
	for _, text := range body.Properties.AddressSpace.AddressPrefixes {
		p, err := parsePrefix(text)
		if err != nil {
			return nil, invalid("properties.addressSpace.addressPrefixes", "%v", err)
		}
		n.Prefixes = append(n.Prefixes, p)
	}
	if len(n.Prefixes) == 0 {
		return nil, invalid("properties.addressSpace.addressPrefixes", "at least one is needed")
	}
	n.Egress, n.Sites = nil, nil
	if err := applyTags(r.api, networkSettings, common.Tags, &n); err != nil {
		return nil, invalid("tags", "%v", err)
	}
	if len(body.Properties.Subnets) > 0 {
		if err := r.replaceSubnets(s, &n, &f, body.Properties.Subnets); err != nil {
			return nil, err
		}
	}
	n.API, err = writeFacet(f)
	return &n, err
}

// replaceSubnets gives a network the subnets of a list and no others.
func (r *request) replaceSubnets(s *link.Snapshot, n *link.Network, f *networkFacet, list []subnet) error {
	kept, known, index := n.Subnets, f.Subnets, indexSubnets(f.Subnets)
	n.Subnets, f.Subnets = nil, nil
	given := make(map[string]bool, len(list))
	for _, body := range list {
		name, err := segment("subnet name", body.Name)
		if err != nil {
			return invalid("properties.subnets", "%v", err)
		}
		if given[name] {
			return invalid("properties.subnets", "subnet %s is given twice", quote(body.Name))
		}
		given[name] = true
		own := subnetFacet{Name: body.Name}
		if i, ok := index[name]; ok {
			own.Name = known[i].Name
		}
		sub, own, err := writtenSubnet(name, own, &body)
		if err != nil {
			return err
		}
		n.Subnets, f.Subnets = append(n.Subnets, sub), append(f.Subnets, own)
	}
	gone := slices.DeleteFunc(slices.Clone(kept), func(sub link.Subnet) bool { return given[sub.Name] })
	return r.subnetsFree(s, n.ID, gone)
}

// patchNetwork replaces the tags, which is all that a PATCH can.
func (r *request) patchNetwork() (reply, error) {
	id, err := r.id("network")
	if err != nil {
		return reply{}, err
	}
	tags, err := r.patchedTags()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditNetwork(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Network) (*link.Network, error) {
		if err := unchanged(r, old, r.api.showNetwork); err != nil {
			return nil, err
		}
		if old == nil {
			return nil, r.notFound(typeNetwork, r.path("network"))
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		n, f := *old, facetOf[networkFacet](old.API)
		f.Tags, n.Egress, n.Sites = tags, nil, nil
		if err := applyTags(r.api, networkSettings, tags, &n); err != nil {
			return nil, invalid("tags", "%v", err)
		}
		n.API, err = writeFacet(f)
		return &n, err
	})
	if err != nil {
		return reply{}, networkProblem(err)
	}
	return ok(seal(r.api.showNetwork(res.Snapshot.Network(id)))), nil
}

func (r *request) deleteNetwork() (reply, error) {
	id, err := r.id("network")
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditNetwork(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Network) (*link.Network, error) {
		if err := unchanged(r, old, r.api.showNetwork); err != nil || old == nil {
			return nil, err
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		return nil, r.subnetsFree(s, id, old.Subnets)
	})
	if err != nil {
		return reply{}, networkProblem(err)
	}
	if r.dry() {
		return r.planned(res)
	}
	return deleted(res), nil
}

// networkProblem gives errors about networks and subnets Azure's codes.
func networkProblem(err error) error {
	return recode(err,
		coded{link.ErrOverlap, "NetcfgSubnetRangesOverlap"},
		coded{link.ErrOutside, "NetcfgInvalidSubnet"},
	)
}

// showNetwork renders a network.
func (a *API) showNetwork(n *link.Network) *virtualNetwork {
	v := &virtualNetwork{head: a.head(typeNetwork, n.ID, a.subnets(n).facet.facet)}
	p := &v.Properties
	p.ProvisioningState, p.ResourceGUID = succeeded, guidOf(n, n.Facet)
	p.AddressSpace.AddressPrefixes = texts(n.Prefixes)
	p.Subnets = a.showSubnets(n)
	return v
}

// originOf returns the origin of an object, the zero one of none.
func originOf(n *link.Network) link.Origin {
	if n == nil {
		return link.Origin{}
	}
	return n.Origin
}
