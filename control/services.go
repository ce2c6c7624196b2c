package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
)

// EditService creates, replaces or deletes a service. Deleting one with connections is an [*InUseError].
// The private half of its names is filled in, and its alias.
func (c *Control) EditService(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Service) (*link.Service, error)) (Result, error) {
	var p proofs
	return c.change(ctx, op, write{
		action: "service.write", object: object(link.KindService, id),
		subscription: c.SubscriptionOf(id), right: Publish,
		prepare: func(ctx context.Context) (err error) {
			p, err = c.proveEdit(ctx, id, edit)
			return err
		},
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			v, err := edit(s, s.Service(id))
			switch {
			case err != nil:
				return verdict{}, err
			case v == nil:
				return c.deleteService(s, id)
			}
			return c.putService(s, op.Caller, id, *v, p)
		},
	})
}

// ForceDeleteService deletes a service; its connections become Disconnected.
func (c *Control) ForceDeleteService(ctx context.Context, op Op, id link.ID, check func(s *link.Snapshot, old *link.Service) error) (Result, error) {
	return c.change(ctx, op, write{
		action: "service.force-delete", object: object(link.KindService, id),
		subscription: c.SubscriptionOf(id), right: Publish,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			old := s.Service(id)
			if err := check(s, old); err != nil || old == nil {
				return verdict{}, err
			}
			return verdict{changes: []link.Change{link.DeleteService{ID: id, Force: true}}}, nil
		},
	})
}

func (c *Control) deleteService(s *link.Snapshot, id link.ID) (verdict, error) {
	v := verdict{action: "service.delete"}
	if s.Service(id) == nil {
		return v, nil
	}
	var users inUse
	for e := range s.EndpointsOf(id) {
		if e.Connection.State != link.Disconnected {
			users.add(link.KindEndpoint, e.ID)
		}
	}
	if err := users.err(); err != nil {
		return v, err
	}
	v.changes = []link.Change{link.DeleteService{ID: id}}
	return v, nil
}

// putService decides on a service as it shall be. p has what was found out about its names.
func (c *Control) putService(s *link.Snapshot, caller Caller, id link.ID, now link.Service, p proofs) (verdict, error) {
	v := verdict{action: "service.put"}
	old, owner := s.Service(id), c.owner(c.SubscriptionOf(id))
	now.ID, now.Tenant, now.Origin = id, owner.Name, link.Origin{}
	if old == nil {
		if err := ofAPI(link.KindService, id); err != nil {
			return v, err
		}
		v.created, now.UID = true, newUID(now.UID)
		var err error
		if now.Alias, err = link.NewAlias(id, rand.Reader); err != nil {
			return v, err
		}
	}
	if err := c.serviceLimits(s, &v.near, old, &now); err != nil {
		return v, err
	}
	if err := c.spell(owner, old, &now, p); err != nil {
		return v, err
	}
	if err := c.checkPort(owner, old, &now); err != nil {
		return v, err
	}
	now.Reach = slices.Clone(owner.Targets)
	if len(now.Within) > 0 && len(now.TargetNames) == 0 {
		return v, fmt.Errorf("%w: within says where the names of targets may lead, and every target is an address", link.ErrInvalid)
	}
	if err := c.checkAddresses(s, owner, old, &now); err != nil {
		return v, err
	}
	v.changes = []link.Change{link.PutService{Service: now, Approver: c.approver(caller, id)}}
	return v, nil
}

// approver returns the caller's name where they may decide on the connections of a service, else "".
func (c *Control) approver(caller Caller, service link.ID) string {
	if c.authorise(caller, c.SubscriptionOf(service), Approve) != nil {
		return ""
	}
	if caller.Name == "" {
		return "unnamed"
	}
	return caller.Name
}

// serviceLimits returns a [*LimitError] where a service is more than its subscription may have.
func (c *Control) serviceLimits(s *link.Snapshot, near *fills, old, now *link.Service) error {
	if old == nil {
		sub := now.ID.Subscription()
		owned := s.Owned(link.KindService, sub)
		if err := near.take(fill{"services", "services of a subscription", link.ID(sub), owned, owned + 1, c.config.Limits.Services}); err != nil {
			return err
		}
		old = &link.Service{}
	}
	l := c.config.Limits
	for _, f := range []fill{
		{"nat", "NAT addresses of a service", now.ID, len(old.NAT), len(now.NAT), l.NAT},
		{"visibility", "entries of the visibility list of a service", now.ID, len(old.Visible), len(now.Visible), l.Visibility},
		{"auto_approval", "entries of the auto-approval list of a service", now.ID, len(old.AutoApprove), len(now.AutoApprove), l.AutoApproval},
		{"reject", "entries of the reject list of a service", now.ID, len(old.Reject), len(now.Reject), l.Visibility},
		{"names", "names of a service", now.ID, len(old.Names), len(now.Names), l.NamesPerService},
		{"targets", "targets of a service", now.ID, len(old.Targets) + len(old.TargetNames), len(now.Targets) + len(now.TargetNames), l.TargetsPerService},
	} {
		if err := near.take(f); err != nil {
			return err
		}
	}
	return nil
}
