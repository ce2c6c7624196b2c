package control

import (
	"context"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// Balancer is the type of the documents that are load balancers.
const Balancer = "balancer"

// maxDocuments bounds those of a type in a subscription: Azure's figure for load balancers, and near that for
// resource groups.
const maxDocuments = 1000

// EditDocument creates, replaces or deletes a document. right is what it takes.
func (c *Control) EditDocument(ctx context.Context, op Op, right Right, typ string, id link.ID, edit func(s *link.Snapshot, old *link.Document) (*link.Document, error)) (Result, error) {
	return c.change(ctx, op, write{
		action: "document.write", object: string(link.KindDocument) + "/" + link.DocumentKey(typ, id),
		subscription: documentSubscription(id), right: right,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			d, err := edit(s, s.Document(typ, id))
			if err != nil {
				return verdict{}, err
			}
			return c.writeDocument(s, typ, id, d)
		},
	})
}

// EditBalancer is EditDocument for a load balancer, with the services whose targets it changes: edit
// returns each as it shall be.
func (c *Control) EditBalancer(ctx context.Context, op Op, id link.ID, edit func(s *link.Snapshot, old *link.Document) (*link.Document, []link.Service, error)) (Result, error) {
	return c.change(ctx, op, write{
		action: "balancer.write", object: string(link.KindDocument) + "/" + link.DocumentKey(Balancer, id),
		subscription: documentSubscription(id), right: Publish,
		decide: func(s *link.Snapshot, _ time.Time) (verdict, error) {
			d, services, err := edit(s, s.Document(Balancer, id))
			if err != nil {
				return verdict{}, err
			}
			v, err := c.writeDocument(s, Balancer, id, d)
			v.action = strings.Replace(v.action, "document.", "balancer.", 1)
			if err != nil {
				return v, err
			}
			for _, now := range services {
				if err := c.MayRefer(op.Caller, link.KindService, now.ID, Publish); err != nil {
					return v, err
				}
				put, err := c.putService(s, op.Caller, now.ID, now, nil)
				if err != nil {
					return v, err
				}
				v.changes = append(v.changes, put.changes...)
				v.near = append(v.near, put.near...)
			}
			return v, nil
		},
	})
}

// writeDocument decides on a document as it shall be, nil for none.
func (c *Control) writeDocument(s *link.Snapshot, typ string, id link.ID, d *link.Document) (verdict, error) {
	old := s.Document(typ, id)
	if d == nil {
		v := verdict{action: "document.delete"}
		if old != nil {
			v.changes = []link.Change{link.DeleteDocument{Type: typ, ID: id}}
		}
		return v, nil
	}
	v, now := verdict{action: "document.put", created: old == nil}, *d
	now.Type, now.ID, now.Tenant = typ, id, c.owner(documentSubscription(id)).Name
	if old == nil {
		now.UID = newUID(now.UID)
		sub := documentSubscription(id)
		n := s.CountDocuments(typ, sub)
		if err := v.near.take(fill{"documents", typ + " documents of a subscription", link.ID(sub), n, n + 1, maxDocuments}); err != nil {
			return v, err
		}
	}
	v.changes = []link.Change{link.PutDocument{Document: now}}
	return v, nil
}

// documentSubscription returns the subscription of a document: the first segment of its ID, of which a
// resource group has fewer than others.
func documentSubscription(id link.ID) string {
	first, _, _ := strings.Cut(string(id), "/")
	return first
}
