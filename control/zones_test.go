package control

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

const zoneF link.ID = subF + "/rg/corp.example"

func (w *world) putZoneAs(o Op, id link.ID, networks ...link.ID) (Result, error) {
	return w.EditZone(w.t.Context(), o, id, func(_ *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error) {
		z := link.PrivateZone{Name: link.Name(id.Last())}
		for _, n := range networks {
			z.Links = append(z.Links, link.ZoneLink{Name: strings.ReplaceAll(string(n), "/", "-"), Network: n})
		}
		return &z, nil
	})
}

func (w *world) deleteZoneAs(o Op, id link.ID) (Result, error) {
	return w.EditZone(w.t.Context(), o, id, func(*link.Snapshot, *link.PrivateZone) (*link.PrivateZone, error) { return nil, nil })
}

func (w *world) putRecordAs(o Op, zone link.ID, rtype, name string, data ...string) (Result, error) {
	return w.EditRecordSet(w.t.Context(), o, zone, rtype, name, func(*link.Snapshot, *link.RecordSet) (*link.RecordSet, error) {
		return &link.RecordSet{TTL: 10, Data: data}, nil
	})
}

// TestZoneRights: who may write a zone, its records and its links, and that a refusal changes nothing.
func TestZoneRights(t *testing.T) {
	both := op(Owner, subC)
	both.Caller.Grants = append(both.Caller.Grants, Grant{subF, Reader})
	for name, tt := range map[string]struct {
		do  func(w *world) (Result, error)
		err error
	}{
		"network role writes a zone":         {func(w *world) (Result, error) { return w.putZoneAs(op(Consumer, subF), subF+"/rg/x.example") }, nil},
		"provider writes no zone":            {func(w *world) (Result, error) { return w.putZoneAs(op(Provider, subF), subF+"/rg/x.example") }, ErrForbidden},
		"reader writes no record":            {func(w *world) (Result, error) { return w.putRecordAs(op(Reader, subF), zoneF, "A", "x", "10.0.0.1") }, ErrForbidden},
		"a foreign tenant sees no zone":      {func(w *world) (Result, error) { return w.putZoneAs(op(Owner, subC), zoneF) }, ErrNoSubscription},
		"a foreign tenant sees no record":    {func(w *world) (Result, error) { return w.putRecordAs(op(Owner, subC), zoneF, "A", "x", "10.0.0.1") }, ErrNoSubscription},
		"link to an own network":             {func(w *world) (Result, error) { return w.putZoneAs(op(Consumer, subF), zoneF, netF) }, nil},
		"link to a network that isn't there": {func(w *world) (Result, error) { return w.putZoneAs(op(Owner, subF), zoneF, subF+"/rg/nobody") }, ErrReference},
		"link to a foreign network":          {func(w *world) (Result, error) { return w.putZoneAs(op(Owner, subC), subC+"/rg/x.example", netF) }, ErrReference},
		"link to a network of a reader":      {func(w *world) (Result, error) { return w.putZoneAs(both, subC+"/rg/x.example", netF) }, ErrLinkedForbidden},
		"zone in the Corefile":               {func(w *world) (Result, error) { return w.putZoneAs(op(Owner, subOp), "x.example") }, link.ErrConflict},
		"record in no zone":                  {func(w *world) (Result, error) { return w.putRecordAs(op(Owner, subF), subF+"/rg/x.example", "A", "x") }, link.ErrNotFound},
		"bad record":                         {func(w *world) (Result, error) { return w.putRecordAs(op(Owner, subF), zoneF, "A", "x", "nonsense") }, link.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w := furnished(t)
			w.ok(w.putZoneAs(op(Owner, subF), zoneF))
			before := w.state()
			r, err := tt.do(w)
			if tt.err != nil {
				w.refused(before, err, tt.err)
			} else if w.ok(r, err); !r.Changed {
				t.Error("nothing was changed")
			}
		})
	}
}

func TestZoneLife(t *testing.T) {
	w := furnished(t, func(c *Config) { c.Limits.RecordSets, c.Limits.Zones, c.Limits.LinksPerZone = 2, 2, 1 })
	o := op(Owner, subF)
	w.ok(w.putNetworkAs(o, network(subF+"/rg/net2", "2")))
	if r := w.ok(w.putZoneAs(o, zoneF, netF)); !r.Created || r.Snapshot.Zone(zoneF).UID == "" || r.Snapshot.Zone(zoneF).Tenant != "fabrikam" {
		t.Errorf("created %+v", r.Snapshot.Zone(zoneF))
	}
	var limit *LimitError
	if _, err := w.putZoneAs(o, zoneF, netF, subF+"/rg/net2"); !errors.As(err, &limit) || limit.Limit != 1 {
		t.Errorf("a link more: %v", err)
	}
	w.ok(w.putRecordAs(o, zoneF, "A", "x", "10.0.0.1"))
	if r := w.ok(w.putRecordAs(o, zoneF, "A", "x", "10.0.0.1")); r.Changed || r.Created {
		t.Errorf("the same again: %+v", r)
	}
	w.ok(w.putRecordAs(o, zoneF, "SOA", "@", "a. b. 1 2 3 4 5"))
	if _, err := w.putRecordAs(o, zoneF, "A", "y", "10.0.0.1"); !errors.As(err, &limit) || limit.Limit != 2 {
		t.Errorf("a record set more: %v", err)
	}
	w.ok(w.putZoneAs(o, subF+"/rg/x.example"))
	if _, err := w.putZoneAs(o, subF+"/rg/y.example"); !errors.As(err, &limit) || limit.Limit != 2 {
		t.Errorf("a zone more: %v", err)
	}
	before := w.state()
	for _, name := range []string{"_postern", "_postern.shop"} { // a private zone proves no domain
		_, err := w.putRecordAs(o, zoneF, "TXT", name, `"postern-tenant=bbbbbbbb-0000-0000-0000-00000000f001"`)
		w.refused(before, err, link.ErrInvalid)
	}
	_, err := w.EditRecordSet(t.Context(), o, zoneF, "SOA", "@", func(*link.Snapshot, *link.RecordSet) (*link.RecordSet, error) { return nil, nil })
	w.refused(before, err, link.ErrInvalid)
	_, err = w.deleteZoneAs(o, zoneF)
	w.refused(before, err, ErrInUse)
	_, err = w.EditNetwork(t.Context(), o, netF, func(*link.Snapshot, *link.Network) (*link.Network, error) { return nil, nil })
	w.refused(before, err, ErrInUse)
	w.ok(w.putZoneAs(o, zoneF))
	revision := w.state().Revision()
	w.ok(w.deleteZoneAs(o, zoneF))
	if r := w.ok(w.deleteZoneAs(o, zoneF)); r.Changed || r.Snapshot.RecordSet(zoneF, "A", "x") != nil {
		t.Errorf("deleted twice: %+v", r)
	}
	entry := w.audit(revision + 1)[0]
	if entry.Action != "zone.delete" || !slices.Contains(entry.Scopes, subF) || len(entry.Changes) != 3 {
		t.Errorf("audit %+v", entry)
	}
}
