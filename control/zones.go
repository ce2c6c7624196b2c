package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
)

// EditZone creates, replaces or deletes a private zone. One with links isn't deleted, nor one that an
// endpoint has in its group ([*InUseError]); without, it takes its record sets along. To link a
// network takes the right to write it too.
func (c *Control) EditZone(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.PrivateZone) (*link.PrivateZone, error)) (Result, error) {
	return c.change(ctx, op, write{
		action: "zone.write", object: object(link.KindZone, id),
		subscription: c.SubscriptionOf(id), right: Connect,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			z, err := edit(s, s.Zone(id))
			switch {
			case err != nil:
				return verdict{}, err
			case z == nil:
				return c.deleteZone(s, id)
			}
			return c.putZone(s, op.Caller, id, *z)
		},
	})
}

func (c *Control) deleteZone(s *link.Snapshot, id link.ID) (verdict, error) {
	v := verdict{action: "zone.delete"}
	z := s.Zone(id)
	if z == nil {
		return v, nil
	}
	var users inUse
	for _, l := range z.Links {
		users.add(link.KindNetwork, l.Network)
	}
	for e := range s.Members(id) {
		users.add(link.KindEndpoint, e.ID)
	}
	if err := users.err(); err != nil {
		return v, err
	}
	v.changes = []link.Change{link.DeleteZone{ID: id}}
	return v, nil
}

func (c *Control) putZone(s *link.Snapshot, caller Caller, id link.ID, z link.PrivateZone) (verdict, error) {
	v := verdict{action: "zone.put"}
	old, owner := s.Zone(id), c.owner(c.SubscriptionOf(id))
	z.ID, z.Tenant = id, owner.Name
	var before []link.ZoneLink
	if old == nil {
		if err := ofAPI(link.KindZone, id); err != nil {
			return v, err
		}
		v.created, z.UID = true, newUID(z.UID)
		owned := s.Owned(link.KindZone, id.Subscription())
		if err := v.near.take(fill{"zones", "private zones of a subscription", link.ID(id.Subscription()), owned, owned + 1, c.config.Limits.Zones}); err != nil {
			return v, err
		}
	} else {
		before = old.Links
	}
	if err := v.near.take(fill{"zone_links", "links of a private zone", id, len(before), len(z.Links), c.config.Limits.LinksPerZone}); err != nil {
		return v, err
	}
	for _, l := range z.Links {
		if slices.ContainsFunc(before, func(o link.ZoneLink) bool { return o.Network == l.Network }) {
			continue
		}
		if err := c.MayRefer(caller, link.KindNetwork, l.Network, Connect); err != nil {
			return v, err
		}
		if s.Network(l.Network) == nil {
			return v, fmt.Errorf("%w: network %s", ErrReference, l.Network)
		}
		v.scopes = append(v.scopes, c.SubscriptionOf(l.Network))
	}
	v.changes = []link.Change{link.PutZone{Zone: z}}
	return v, nil
}

// EditRecordSet creates, replaces or deletes a record set of a private zone, which must be there
// ([link.ErrNotFound]). rtype and name are as [link.RecordKey] takes them. The SOA of a zone isn't deleted. A set
// that stands against the names of endpoints with the zone in their group is [link.ErrConflict].
func (c *Control) EditRecordSet(ctx context.Context, op Op, zone link.ID, rtype, name string, edit func(s *link.Snapshot, old *link.RecordSet) (*link.RecordSet, error)) (Result, error) {
	return c.change(ctx, op, write{
		action: "record.write", object: string(link.KindRecord) + "/" + link.RecordKey(zone, rtype, name),
		subscription: c.SubscriptionOf(zone), right: Connect,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			old := s.RecordSet(zone, rtype, name)
			r, err := edit(s, old)
			switch {
			case err != nil:
				return verdict{}, err
			case r == nil:
				return deleteRecordSet(old)
			}
			now := *r
			now.Zone, now.Type, now.Name = zone, rtype, name
			return c.putRecordSet(s, old, now)
		},
	})
}

func deleteRecordSet(old *link.RecordSet) (verdict, error) {
	v := verdict{action: "record.delete"}
	switch {
	case old == nil:
		return v, nil
	case old.Type == "SOA":
		return v, fmt.Errorf("%w: the SOA record of a zone can't be deleted", link.ErrInvalid)
	}
	v.changes = []link.Change{link.DeleteRecordSet{Zone: old.Zone, Type: old.Type, Name: old.Name}}
	return v, nil
}

func (c *Control) putRecordSet(s *link.Snapshot, old *link.RecordSet, r link.RecordSet) (verdict, error) {
	v := verdict{action: "record.put", created: old == nil}
	if link.IsProof(r.Name) {
		return v, fmt.Errorf("%w: record set %s: names that begin with %s prove domains in public DNS and are never answered from a private zone", link.ErrInvalid, r.Name, link.ProofLabel)
	}
	if s.Zone(r.Zone) == nil {
		return v, fmt.Errorf("%w: private zone %s", link.ErrNotFound, r.Zone)
	}
	if old == nil {
		r.UID = newUID(r.UID)
		n := s.CountRecordSets(r.Zone)
		if err := v.near.take(fill{"record_sets", "record sets of a private zone", r.Zone, n, n + 1, c.config.Limits.RecordSets}); err != nil {
			return v, err
		}
	}
	v.changes = []link.Change{link.PutRecordSet{RecordSet: r}}
	return v, nil
}

// Limits returns the limits in force.
func (c *Control) Limits() Limits { return c.config.Limits }
