package armapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// What becomes of a name that a zone doesn't have.
const (
	policyDefault  = "Default"
	policyRedirect = "NxDomainRedirect"
)

// zoneLinkFacet is what the API keeps of a link beyond what the domain knows.
type zoneLinkFacet struct {
	facet
	// Registration is kept for clients that send it. There are no virtual machines to register.
	Registration bool `json:"registration,omitempty"`
}

// zoneLinkBody is a virtual network link as it is shown.
type zoneLinkBody struct {
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Type       string             `json:"type"`
	Etag       plainTag           `json:"etag,omitempty"`
	Location   string             `json:"location"`
	Tags       map[string]string  `json:"tags,omitempty"`
	Properties zoneLinkProperties `json:"properties"`
}

type zoneLinkProperties struct {
	State        string `json:"provisioningState"`
	Registration bool   `json:"registrationEnabled"`
	Policy       string `json:"resolutionPolicy"`
	Network      idBody `json:"virtualNetwork"`
	LinkState    string `json:"virtualNetworkLinkState"`
}

// idBody is a reference to another resource.
type idBody struct {
	ID string `json:"id"`
}

// zoneLinkInput is what clients send of a link.
type zoneLinkInput struct {
	Location   string             `json:"location"`
	Tags       map[string]*string `json:"tags"`
	Properties struct {
		Registration *bool   `json:"registrationEnabled"`
		Policy       *string `json:"resolutionPolicy"`
		Network      *idBody `json:"virtualNetwork"`
	} `json:"properties"`
}

func readLink(l link.ZoneLink) zoneLinkFacet {
	f := zoneLinkFacet{facet: facet{Name: l.Name, Location: globally}}
	readFacet(l.API, &f)
	return f
}

// renderLink returns a link as it is shown, sealed.
func (r *request) renderLink(s *link.Snapshot, z *link.PrivateZone, l link.ZoneLink) *zoneLinkBody {
	f := readLink(l)
	b := &zoneLinkBody{ID: r.api.armID(typeZone, z.ID, zoneFacet(z)) + "/virtualNetworkLinks/" + f.Name, Name: f.Name, Type: typeLink, Location: globally, Tags: f.Tags}
	b.Properties = zoneLinkProperties{State: "Succeeded", Registration: f.Registration, Policy: policyDefault, LinkState: "Completed"}
	if l.Redirect {
		b.Properties.Policy = policyRedirect
	}
	var of facet
	if n := s.Network(l.Network); n != nil {
		readFacet(n.API, &of)
	}
	b.Properties.Network.ID = r.api.armID(typeNetwork, l.Network, of)
	return seal(b)
}

// linkAt returns where a zone has the link of the path, -1 where it hasn't.
func (r *request) linkAt(z *link.PrivateZone) int {
	return slices.IndexFunc(z.Links, func(l link.ZoneLink) bool { return l.Name == strings.ToLower(r.path("link")) })
}

func (r *request) getZoneLink() (reply, error) {
	z, err := r.zone()
	if err != nil {
		return reply{}, err
	}
	i := r.linkAt(z)
	if i < 0 {
		return reply{}, r.notFound(typeLink, r.path("link"))
	}
	return ok(r.renderLink(r.view(), z, z.Links[i])), nil
}

func (r *request) listZoneLinks() (reply, error) {
	z, err := r.zone()
	if err != nil {
		return reply{}, r.noZone()
	}
	sorted := slices.SortedFunc(slices.Values(z.Links), func(a, b link.ZoneLink) int { return strings.Compare(a.Name, b.Name) })
	name := func(l link.ZoneLink) string { return l.Name }
	return page(r, held(sorted, name), name,
		func(l link.ZoneLink) (any, error) { return r.renderLink(r.view(), z, l), nil })
}

func (r *request) putZoneLink() (reply, error) {
	return r.editLink(func(in *zoneLinkInput, l *link.ZoneLink, f *zoneLinkFacet, there bool) error {
		if in.Location == "" && !there {
			return fail(http.StatusBadRequest, "LocationRequired", "The location property is required for this definition.")
		}
		if in.Properties.Network == nil || in.Properties.Network.ID == "" {
			return fail(http.StatusBadRequest, "InvalidRequestFormat", "The field 'properties.virtualNetwork.id' is required.")
		}
		l.Redirect, f.Registration, f.Tags = false, false, map[string]string{}
		return nil
	})
}

func (r *request) patchZoneLink() (reply, error) {
	return r.editLink(func(in *zoneLinkInput, _ *link.ZoneLink, f *zoneLinkFacet, there bool) error {
		if !there {
			return r.notFound(typeLink, r.path("link"))
		}
		if in.Tags != nil {
			f.Tags = map[string]string{}
		}
		return nil
	})
}

// editLink creates or changes the link of the path. begin judges the input and makes what it replaces empty.
func (r *request) editLink(begin func(in *zoneLinkInput, l *link.ZoneLink, f *zoneLinkFacet, there bool) error) (reply, error) {
	var in zoneLinkInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	id, err := r.zoneID()
	if err != nil {
		return reply{}, err
	}
	if err := checkName("link name", r.path("link")); err != nil {
		return reply{}, err
	}
	fresh := false
	res, err := r.api.Control.EditZone(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error) {
		if old == nil {
			return nil, r.noZone()
		}
		z, l, f, i := *old, link.ZoneLink{Name: strings.ToLower(r.path("link"))}, zoneLinkFacet{}, r.linkAt(old)
		var current *zoneLinkBody
		if fresh = i < 0; !fresh {
			l, f, current = old.Links[i], readLink(old.Links[i]), r.renderLink(s, old, old.Links[i])
		}
		if err := r.precondition(current); err != nil {
			return nil, err
		}
		if err := begin(&in, &l, &f, !fresh); err != nil {
			return nil, err
		}
		if err := r.applyLink(&in, &l, &f, !fresh); err != nil {
			return nil, err
		}
		f.facet.Location = globally
		f.facet = r.named("link", f.facet)
		f.Group = "" // that of the zone
		var err error
		if l.API, err = writeFacet(f); err != nil {
			return nil, err
		}
		if z.Links = slices.Clone(old.Links); fresh {
			z.Links = append(z.Links, l)
		} else {
			z.Links[i] = l
		}
		return &z, nil
	})
	if err != nil {
		return reply{}, err
	}
	z := res.Snapshot.Zone(id)
	res.Created = fresh
	return created(res, r.renderLink(res.Snapshot, z, z.Links[r.linkAt(z)])), nil
}

// applyLink takes over what a request says of a link.
func (r *request) applyLink(in *zoneLinkInput, l *link.ZoneLink, f *zoneLinkFacet, there bool) error {
	p := &in.Properties
	if p.Network != nil && p.Network.ID != "" {
		ref, err := r.api.reference("properties.virtualNetwork.id", p.Network.ID, typeNetwork)
		if err != nil {
			return err
		}
		if there && ref.ID != l.Network {
			return fail(http.StatusConflict, "Conflict", "The virtual network of a link can't be changed. Delete the link and make another.")
		}
		l.Network = ref.ID
	}
	if p.Registration != nil {
		f.Registration = *p.Registration
	}
	if p.Policy != nil && *p.Policy != "" {
		switch {
		case strings.EqualFold(*p.Policy, policyRedirect):
			l.Redirect = true
		case strings.EqualFold(*p.Policy, policyDefault):
			l.Redirect = false
		default:
			return fail(http.StatusBadRequest, "InvalidRequestFormat", "The field 'properties.resolutionPolicy' is %s or %s, not %s.", policyDefault, policyRedirect, quote(*p.Policy))
		}
	}
	return mergeTags(f.Tags, in.Tags)
}

func (r *request) deleteZoneLink() (reply, error) {
	id, err := r.zoneID()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditZone(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error) {
		if old == nil {
			return nil, nil
		}
		i := r.linkAt(old)
		if i < 0 {
			return old, nil
		}
		if err := r.precondition(r.renderLink(s, old, old.Links[i])); err != nil {
			return nil, err
		}
		z := *old
		z.Links = slices.Delete(slices.Clone(old.Links), i, i+1)
		return &z, nil
	})
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}
