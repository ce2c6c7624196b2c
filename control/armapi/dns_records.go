package armapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// recordOperations are the rows of record sets: each type of the eight is a segment of its own.
func recordOperations() []operation {
	rows := []operation{{method: http.MethodGet, pattern: zonePath + "/ALL", handle: func(r *request) (reply, error) { return r.listSets("") }}}
	for _, rtype := range link.RecordTypes() {
		list := zonePath + "/" + rtype
		one := list + recordName
		rows = append(rows,
			operation{method: http.MethodGet, pattern: list, handle: func(r *request) (reply, error) { return r.listSets(rtype) }},
			operation{method: http.MethodGet, pattern: one, handle: func(r *request) (reply, error) { return r.getSet(rtype) }},
			operation{method: http.MethodPut, pattern: one, handle: func(r *request) (reply, error) { return r.writeSet(rtype, false) }},
			operation{method: http.MethodPatch, pattern: one, handle: func(r *request) (reply, error) { return r.writeSet(rtype, true) }},
			operation{method: http.MethodDelete, pattern: one, handle: func(r *request) (reply, error) { return r.deleteSet(rtype) }},
		)
	}
	return rows
}

// setFacet is what the API keeps of a record set beyond what the domain knows.
type setFacet struct {
	Name     string            `json:"name,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// setBody is a record set as it is shown.
type setBody struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	Type       string        `json:"type"`
	Etag       plainTag      `json:"etag,omitempty"`
	Properties setProperties `json:"properties"`
}

type setProperties struct {
	FQDN       string            `json:"fqdn"`
	TTL        uint32            `json:"ttl"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Registered bool              `json:"isAutoRegistered"`
	recordData
}

// setInput is what clients send of a record set.
type setInput struct {
	Properties struct {
		TTL      *int64             `json:"ttl"`
		Metadata map[string]*string `json:"metadata"`
		recordData
	} `json:"properties"`
}

// renderSet returns a record set as it is shown, sealed.
func (r *request) renderSet(z *link.PrivateZone, s *zoneSet) *setBody {
	f := setFacet{Name: s.name}
	if s.made != nil {
		readFacet(s.made.API, &f)
	}
	if len(s.endpoints) > 0 {
		f.Metadata = map[string]string{"creator": clip("created by private endpoint "+strings.Join(s.endpoints, ", "), maxTagValue)}
	}
	b := &setBody{ID: r.api.armID(typeZone, z.ID, zoneFacet(z)) + "/" + s.rtype + "/" + f.Name, Name: f.Name, Type: typeZone + "/" + s.rtype}
	b.Properties = setProperties{FQDN: string(z.Full(s.name)) + ".", TTL: s.ttl, Metadata: f.Metadata, recordData: dataOf(s.rtype, s.lines)}
	return seal(b)
}

func clip(s string, most int) string { return s[:min(len(s), most)] }

func (r *request) listSets(rtype string) (reply, error) {
	z, err := r.zone()
	if err != nil {
		return reply{}, r.noZone()
	}
	all := setsOf(r.view(), z, rtype)
	if suffix := strings.ToLower(r.query("$recordsetnamesuffix")); suffix != "" {
		all = slices.DeleteFunc(all, func(s *zoneSet) bool { return !strings.HasSuffix(s.name, suffix) })
	}
	return page(r, held(all, (*zoneSet).key), (*zoneSet).key, func(s *zoneSet) (any, error) { return r.renderSet(z, s), nil })
}

func (r *request) getSet(rtype string) (reply, error) {
	z, err := r.zone()
	if err != nil {
		return reply{}, r.noZone()
	}
	s := setAt(r.view(), z, rtype, strings.ToLower(r.path("record")))
	if s == nil {
		return reply{}, r.notFound(typeZone+"/"+rtype, r.path("record"))
	}
	return ok(r.renderSet(z, s)), nil
}

// setName returns zone and relative name of the path.
func (r *request) setName() (id link.ID, name string, err error) {
	if id, err = r.zoneID(); err != nil {
		return "", "", err
	}
	name, err = link.ParseRelative(r.path("record"), link.Name(id.Last()))
	return id, name, err
}

// writeSet creates, replaces or, with patch, changes the record set of the path.
func (r *request) writeSet(rtype string, patch bool) (reply, error) {
	var in setInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	id, name, err := r.setName()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditRecordSet(r.Context(), r.op(), id, rtype, name, func(s *link.Snapshot, old *link.RecordSet) (*link.RecordSet, error) {
		z := s.Zone(id)
		if z == nil {
			return nil, r.noZone()
		}
		was := setAt(s, z, rtype, name)
		if err := r.mayWriteSet(z, was); err != nil {
			return nil, err
		}
		if patch && was == nil {
			return nil, r.notFound(typeZone+"/"+rtype, r.path("record"))
		}
		now := link.RecordSet{}
		if old != nil {
			now = *old
		} else if was != nil {
			now.TTL, now.Data = was.ttl, was.lines
		}
		return &now, r.applySet(&in, z, rtype, &now, patch)
	})
	if err != nil {
		return reply{}, err
	}
	return created(res, r.renderSet(res.Snapshot.Zone(id), setAt(res.Snapshot, res.Snapshot.Zone(id), rtype, name))), nil
}

// mayWriteSet judges the condition of the request, and refuses to write a view.
func (r *request) mayWriteSet(z *link.PrivateZone, was *zoneSet) error {
	var current *setBody
	if was != nil {
		current = r.renderSet(z, was)
	}
	if err := r.precondition(current); err != nil {
		return err
	}
	if was != nil && len(was.endpoints) > 0 {
		return fail(http.StatusConflict, "Conflict", "The record set is managed by the zone group of private endpoint %s and can't be changed.", quote(was.endpoints[0]))
	}
	return nil
}

// applySet takes over what a request says of a record set.
func (r *request) applySet(in *setInput, z *link.PrivateZone, rtype string, now *link.RecordSet, patch bool) error {
	p := &in.Properties
	soa := z.SOA().Data[0]
	if rtype == "SOA" && len(now.Data) == 1 {
		soa = now.Data[0]
	}
	lines, given, err := p.lines(rtype, soa)
	switch {
	case err != nil:
		return err
	case given || !patch && rtype != "SOA":
		now.Data = lines
	}
	switch {
	case p.TTL != nil && (*p.TTL < 0 || *p.TTL > link.MaxTTL):
		return fail(http.StatusBadRequest, "InvalidRequestFormat", "The field 'properties.ttl' is from 0 to %d.", link.MaxTTL)
	case p.TTL != nil:
		now.TTL = uint32(*p.TTL)
	case !patch:
		return fail(http.StatusBadRequest, "InvalidRequestFormat", "The field 'properties.ttl' is required.")
	}
	f := setFacet{Name: r.path("record")}
	readFacet(now.API, &f)
	if !patch || p.Metadata != nil {
		f.Metadata = map[string]string{}
		if err := mergeTags(f.Metadata, p.Metadata); err != nil {
			return err
		}
	}
	now.API, err = writeFacet(f)
	return err
}

// deleteSet answers 204 where there is nothing.
func (r *request) deleteSet(rtype string) (reply, error) {
	id, name, err := r.setName()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditRecordSet(r.Context(), r.op(), id, rtype, name, func(s *link.Snapshot, _ *link.RecordSet) (*link.RecordSet, error) {
		z := s.Zone(id)
		if z == nil {
			return nil, nil
		}
		was := setAt(s, z, rtype, name)
		if was == nil {
			return nil, nil
		}
		if err := r.mayWriteSet(z, was); err != nil {
			return nil, err
		}
		if rtype == "SOA" {
			return nil, fail(http.StatusBadRequest, "InvalidOperation", "The SOA record of a zone can't be deleted.")
		}
		return nil, nil
	})
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}
