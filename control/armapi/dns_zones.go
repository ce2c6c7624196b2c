package armapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// Where private zones and what is in them are.
const (
	zonesIn    = inGroup + providers + typeZone
	zonePath   = zonesIn + "/{zone}"
	zoneLinks  = zonePath + "/virtualNetworkLinks"
	zoneLink   = zoneLinks + "/{link}"
	typeLink   = typeZone + "/virtualNetworkLinks"
	globally   = "global" // the location of all of private DNS
	recordName = "/{record}"
)

// dnsOperations are the rows of private DNS.
var dnsOperations = slices.Concat([]operation{
	{method: http.MethodPut, pattern: zonePath, handle: (*request).putZone},
	{method: http.MethodPatch, pattern: zonePath, handle: (*request).patchZone},
	{method: http.MethodGet, pattern: zonePath, handle: (*request).getZone},
	{method: http.MethodDelete, pattern: zonePath, handle: (*request).deleteZone},
	{method: http.MethodGet, pattern: zonesIn, handle: (*request).listZones},
	{method: http.MethodGet, pattern: inSubscription + providers + typeZone, handle: (*request).listZones},
	{method: http.MethodPut, pattern: zoneLink, handle: (*request).putZoneLink},
	{method: http.MethodPatch, pattern: zoneLink, handle: (*request).patchZoneLink},
	{method: http.MethodGet, pattern: zoneLink, handle: (*request).getZoneLink},
	{method: http.MethodDelete, pattern: zoneLink, handle: (*request).deleteZoneLink},
	{method: http.MethodGet, pattern: zoneLinks, handle: (*request).listZoneLinks},
}, recordOperations())

// zoneBody is a private zone as it is shown.
type zoneBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Etag       plainTag          `json:"etag,omitempty"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties zoneProperties    `json:"properties"`
}

type zoneProperties struct {
	State           string `json:"provisioningState"`
	InternalID      string `json:"internalId,omitempty"`
	MaxRecordSets   int    `json:"maxNumberOfRecordSets"`
	RecordSets      int    `json:"numberOfRecordSets"`
	MaxLinks        int    `json:"maxNumberOfVirtualNetworkLinks"`
	Links           int    `json:"numberOfVirtualNetworkLinks"`
	MaxRegistration int    `json:"maxNumberOfVirtualNetworkLinksWithRegistration"`
	Registration    int    `json:"numberOfVirtualNetworkLinksWithRegistration"`
}

// zoneInput is what clients send of a zone.
type zoneInput struct {
	Location string             `json:"location"`
	Tags     map[string]*string `json:"tags"`
}

// maxRegistration is Azure's figure.
const maxRegistration = 100

// zoneID returns the ID of the zone in the path. The error is 400 where the name is none of a zone.
func (r *request) zoneID() (link.ID, error) {
	name, err := link.ParseName(r.path("zone"))
	if err != nil || !strings.Contains(string(name), ".") {
		return "", fail(http.StatusBadRequest, "InvalidResourceName", "The private zone name %s is invalid. It has at least two labels of letters, digits and '-'.", quote(r.path("zone")))
	}
	if err := checkName("resource group name", r.path("group")); err != nil {
		return "", err
	}
	return link.ParseID(r.subscription() + "/" + r.path("group") + "/" + string(name))
}

func zoneFacet(z *link.PrivateZone) facet {
	f := facet{Name: string(z.Name), Location: globally}
	readFacet(z.API, &f)
	return f
}

// renderZone returns a zone as it is shown, sealed.
func (r *request) renderZone(s *link.Snapshot, z *link.PrivateZone) *zoneBody {
	f, limits := zoneFacet(z), r.api.Control.Limits()
	b := &zoneBody{ID: r.api.armID(typeZone, z.ID, f), Name: f.Name, Type: typeZone, Location: f.Location, Tags: f.Tags}
	b.Properties = zoneProperties{
		State: "Succeeded", InternalID: z.UID, MaxRecordSets: limits.RecordSets, RecordSets: countSets(s, z),
		MaxLinks: limits.LinksPerZone, Links: len(z.Links), MaxRegistration: maxRegistration,
	}
	for _, l := range z.Links {
		if readLink(l).Registration {
			b.Properties.Registration++
		}
	}
	return seal(b)
}

func (r *request) getZone() (reply, error) {
	z, err := r.zone()
	if err != nil {
		return reply{}, err
	}
	return ok(r.renderZone(r.view(), z)), nil
}

// zone returns the zone of the path, or the answer where there is none.
func (r *request) zone() (*link.PrivateZone, error) {
	id, err := r.zoneID()
	if err != nil {
		return nil, err
	}
	z := r.view().Zone(id)
	if z == nil {
		return nil, r.notFound(typeZone, r.path("zone"))
	}
	return z, nil
}

// noZone is the answer where the zone of a child is not there.
func (r *request) noZone() error {
	return fail(http.StatusNotFound, "ParentResourceNotFound", "Can not perform the requested operation on a nested resource. Parent resource %s was not found.", quote(r.path("zone")))
}

func (r *request) listZones() (reply, error) {
	all := objects(r.api, r.subscription(), r.path("group"), r.view().ZonesFrom, func(z *link.PrivateZone) link.ID { return z.ID })
	return page(r, all, (*link.PrivateZone).Key, func(z *link.PrivateZone) (any, error) { return r.renderZone(r.view(), z), nil })
}

func (r *request) putZone() (reply, error) {
	var in zoneInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	return r.editZone(func(f *facet, there bool) error {
		if in.Location == "" && !there {
			return fail(http.StatusBadRequest, "LocationRequired", "The location property is required for this definition.")
		}
		if in.Location != "" && !strings.EqualFold(in.Location, globally) {
			return fail(http.StatusBadRequest, "LocationNotAvailableForResourceType", "The location %s is not available for private zones: it is %s.", quote(in.Location), globally)
		}
		f.Tags = map[string]string{}
		return mergeTags(f.Tags, in.Tags)
	})
}

func (r *request) patchZone() (reply, error) {
	var in zoneInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	return r.editZone(func(f *facet, there bool) error {
		if !there {
			return r.notFound(typeZone, r.path("zone"))
		}
		if in.Tags == nil {
			return nil
		}
		f.Tags = map[string]string{}
		return mergeTags(f.Tags, in.Tags)
	})
}

// editZone creates or changes the zone of the path.
func (r *request) editZone(change func(f *facet, there bool) error) (reply, error) {
	id, err := r.zoneID()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditZone(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error) {
		z, f := link.PrivateZone{Name: link.Name(id.Last())}, facet{}
		var current *zoneBody
		if old != nil {
			z, f, current = *old, zoneFacet(old), r.renderZone(s, old)
		}
		if err := r.writable(s, link.Origin{}); err != nil {
			return nil, err
		}
		if err := r.precondition(current); err != nil {
			return nil, err
		}
		if err := change(&f, old != nil); err != nil {
			return nil, err
		}
		f.Location = globally
		var err error
		z.API, err = writeFacet(r.named("zone", f))
		return &z, err
	})
	if err != nil {
		return reply{}, err
	}
	return created(res, r.renderZone(res.Snapshot, res.Snapshot.Zone(id))), nil
}

func (r *request) deleteZone() (reply, error) {
	id, err := r.zoneID()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditZone(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error) {
		if old == nil {
			return nil, nil
		}
		return nil, r.precondition(r.renderZone(s, old))
	})
	if used, is := errors.AsType[*control.InUseError](err); is {
		return reply{}, fail(http.StatusConflict, "CannotDeleteResource", "Can not delete resource before nested resources are deleted: %d virtual network links and private endpoints use the zone.", used.N)
	}
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}
