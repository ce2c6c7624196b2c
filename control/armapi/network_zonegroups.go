package armapi

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// maxZoneConfigs is how many zones a group has at most.
const maxZoneConfigs = 5

// recordTTL is what a zone group says of the records in its zones, in seconds.
const recordTTL = 10

func (r *request) getZoneGroup() (reply, error) {
	e, err := r.endpoint()
	if err != nil {
		return reply{}, err
	}
	if e.Zones == nil || !strings.EqualFold(e.Zones.Name, r.path("zoneGroup")) {
		return reply{}, r.notFound(typeEndpoint, r.path("endpoint")+"/privateDnsZoneGroups/"+r.path("zoneGroup"))
	}
	return ok(seal(r.api.showZoneGroup(r.view(), e))), nil
}

func (r *request) listZoneGroups() (reply, error) {
	e, err := r.endpoint()
	if err != nil {
		return reply{}, err
	}
	all := []*zoneGroup{}
	if e.Zones != nil {
		all = append(all, seal(r.api.showZoneGroup(r.view(), e)))
	}
	return list(all), nil
}

func (r *request) putZoneGroup() (reply, error) {
	id, err := r.id("endpoint")
	if err != nil {
		return reply{}, err
	}
	name := r.path("zoneGroup")
	if err := checkName("zone group name", name); err != nil {
		return reply{}, err
	}
	var body zoneGroup
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	configs, err := r.wantedZones(&body)
	if err != nil {
		return reply{}, err
	}
	isNew := false
	res, err := r.api.Control.EditEndpoint(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Endpoint) (*control.Ask, error) {
		if old == nil {
			return nil, r.noParent(typeEndpoint, r.path("endpoint"))
		}
		if err := r.precondition(r.currentZoneGroup(s, old)); err != nil {
			return nil, err
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		isNew = old.Zones == nil
		if !isNew && !strings.EqualFold(old.Zones.Name, name) {
			return nil, fail(http.StatusBadRequest, "PrivateDnsZoneGroupLimitReached", "Private endpoint %s has zone group %s already. It can have only one.", quote(r.path("endpoint")), quote(old.Zones.Name))
		}
		e, f := *old, facetOf[endpointFacet](old.API)
		e.Zones = &link.ZoneGroup{Name: strings.ToLower(name), Configs: slices.Clone(configs)}
		spelled := []string{name}
		if !isNew {
			spelled[0] = spelling(f.ZoneNames, name)
		}
		for i, c := range configs {
			spelled, e.Zones.Configs[i].Name = append(spelled, c.Name), strings.ToLower(c.Name)
		}
		f.ZoneNames = spelled
		var err error
		e.API, err = writeFacet(f)
		return &control.Ask{Endpoint: e}, err
	})
	if err != nil {
		return reply{}, err
	}
	res.Created = isNew
	return created(res, seal(r.api.showZoneGroup(res.Snapshot, res.Snapshot.Endpoint(id)))), nil
}

// wantedZones reads the zones of a body. Whether they are there is seen at the commit.
func (r *request) wantedZones(body *zoneGroup) ([]link.ZoneConfig, error) {
	const field = "properties.privateDnsZoneConfigs"
	if n := len(body.Properties.Configs); n > maxZoneConfigs {
		return nil, invalid(field, "%d zones are too many, %d are allowed", n, maxZoneConfigs)
	}
	var all []link.ZoneConfig
	for _, c := range body.Properties.Configs {
		if err := checkName("zone config name", c.Name); err != nil {
			return nil, err
		}
		ref, err := r.api.reference(field+".privateDnsZoneId", c.Properties.Zone, typeZone)
		if err != nil {
			return nil, err
		}
		for _, o := range all {
			if strings.EqualFold(o.Name, c.Name) || o.Zone == ref.ID {
				return nil, invalid(field, "a name or a zone is given twice: %s", quote(c.Name))
			}
		}
		all = append(all, link.ZoneConfig{Name: c.Name, Zone: ref.ID})
	}
	return all, nil
}

// currentZoneGroup renders the group of the path as it is, nil where there is none.
func (r *request) currentZoneGroup(s *link.Snapshot, e *link.Endpoint) *zoneGroup {
	if e == nil || e.Zones == nil || !strings.EqualFold(e.Zones.Name, r.path("zoneGroup")) {
		return nil
	}
	return seal(r.api.showZoneGroup(s, e))
}

func (r *request) deleteZoneGroup() (reply, error) {
	id, err := r.id("endpoint")
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditEndpoint(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Endpoint) (*control.Ask, error) {
		current := r.currentZoneGroup(s, old)
		if err := r.precondition(current); err != nil || old == nil {
			return nil, err // no endpoint: there is nothing to delete
		}
		if current == nil {
			return &control.Ask{Endpoint: *old}, nil
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		e := *old
		e.Zones = nil
		return &control.Ask{Endpoint: e}, nil
	})
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}

// spelling returns a name as it is spelled in a list, as it is where the list has none of it.
func spelling(list []string, name string) string {
	if i := slices.IndexFunc(list, func(s string) bool { return strings.EqualFold(s, name) }); i >= 0 {
		return list[i]
	}
	return name
}

// showZoneGroup renders the zone group that an endpoint has.
func (a *API) showZoneGroup(s *link.Snapshot, e *link.Endpoint) *zoneGroup {
	f := facetOf[endpointFacet](e.API)
	name := spelling(f.ZoneNames[:min(1, len(f.ZoneNames))], e.Zones.Name)
	id := a.armID(typeEndpoint, e.ID, f.facet) + "/privateDnsZoneGroups/" + name
	g := &zoneGroup{part: part{ID: id, Name: name, Type: typeZoneGroup}}
	g.Properties.ProvisioningState = succeeded
	for _, config := range e.Zones.Configs {
		name := spelling(f.ZoneNames[min(1, len(f.ZoneNames)):], config.Name)
		c := zoneConfig{part: part{ID: id + "/privateDnsZoneConfigs/" + name, Name: name, Type: typeZoneConfig}}
		c.Properties.ProvisioningState = succeeded
		var kept facet
		zone := s.Zone(config.Zone)
		if zone != nil {
			kept = facetOf[facet](zone.API)
			c.Properties.RecordSets = zoneRecords(s, e, zone)
		}
		c.Properties.Zone = a.armID(typeZone, config.Zone, kept)
		g.Properties.Configs = append(g.Properties.Configs, c)
	}
	return g
}

// zoneRecords are the record sets that an endpoint has in a zone at the moment: a view on its state, as
// what DNS answers is.
func zoneRecords(s *link.Snapshot, e *link.Endpoint, zone *link.PrivateZone) []zoneGroupRecord {
	v := s.Service(e.Service)
	if v == nil || !e.Connection.Live() {
		return nil
	}
	kind := "A"
	if e.Address.Is6() {
		kind = "AAAA"
	}
	var all []zoneGroupRecord
	for _, n := range v.Names {
		for _, name := range []link.Name{n.Private, n.Public} {
			label, inside := strings.CutSuffix(string(name), "."+string(zone.Name))
			if !inside && name != zone.Name {
				continue
			}
			if !inside {
				label = "@"
			}
			all = append(all, zoneGroupRecord{Type: kind, Name: label, FQDN: string(name), TTL: recordTTL, Addresses: []string{e.Address.String()}, ProvisioningState: succeeded})
		}
	}
	slices.SortStableFunc(all, func(a, b zoneGroupRecord) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
