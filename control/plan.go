package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/postern-link/postern/link"
)

// Plan is what a manifest would do, or has done.
type Plan struct {
	Changes []PlannedChange `json:"changes"`
	// Begin and Cease are names that start or stop being answered, with their network and addresses.
	Begin []PlannedName `json:"begin,omitempty"`
	Cease []PlannedName `json:"cease,omitempty"`
	Cut   []Flow        `json:"cut,omitempty"` // live flows of this node that would end, or that Apply was about to end
	// Revision is that of the state that was looked at, or after Apply that which was made.
	Revision uint64 `json:"revision"`
}

// PlannedChange is one object that changes.
type PlannedChange struct {
	Object string   `json:"object"`           // "kind/id"
	Verb   string   `json:"verb"`             // created, updated, deleted
	Fields []string `json:"fields,omitempty"` // that differ
}

// PlannedName is a name in a network.
type PlannedName struct {
	Network   link.ID   `json:"network"`
	Name      link.Name `json:"name"`
	Addresses []string  `json:"addresses"`
}

// Plan decides on a set of objects as one change and says what it would do: which objects change, which
// names begin or cease to be answered in which network, which flows of this node would be cut.
func (c *Control) Plan(ctx context.Context, op Op, m Manifest) (Plan, error) {
	op.DryRun = true
	return c.apply(ctx, op, m)
}

// Apply commits what Plan would do.
func (c *Control) Apply(ctx context.Context, op Op, m Manifest) (Plan, error) {
	return c.apply(ctx, op, m)
}

// PlanOf says what a dry run of one of the operations would do, as the caller may know it from a subscription. Of an operation that was done it
// says the same, but for the flows that have ended by now.
func (c *Control) PlanOf(caller Caller, subscription string, r Result) (Plan, error) {
	sees, err := c.scopeOf(caller, subscription)
	if err != nil {
		return Plan{}, err
	}
	return c.plan(sees, r.trial, r.Snapshot.Revision(), c.cut(sees, r.trial)), nil
}

func (c *Control) apply(ctx context.Context, op Op, m Manifest) (Plan, error) {
	sees, err := c.scopeOf(op.Caller, m.Subscription)
	if err != nil {
		return Plan{}, err
	}
	d, err := m.parse()
	if err != nil {
		return Plan{}, err
	}
	a := application{Control: c, op: op, manifest: &m, desired: d}
	if a.keeper, err = m.id("manifest"); err != nil {
		return Plan{}, err
	}
	var cut []Flow
	r, err := c.change(ctx, op, write{
		action: a.action(), object: a.object(),
		subscription: m.Subscription, right: a.right(),
		prepare: a.prove, decide: a.decide,
		before: func(t trial) { cut = c.cut(sees, t) },
	})
	c.sought(op.Caller, err)
	if err != nil {
		return Plan{}, err
	}
	if op.DryRun {
		cut = c.cut(sees, r.trial) // which nobody has to wait for
	}
	return c.plan(sees, r.trial, r.Snapshot.Revision(), cut), nil
}

// manifestType is the type of the documents that remember which objects of a group manifests have made.
const manifestType = "manifest"

// held is the body of such a document: the UID of each object by "kind/id". One that was deleted and made again by
// other hands has another UID, and isn't pruned.
type held struct {
	Objects map[string]string `json:"objects"`
}

// application is one run of a manifest.
type application struct {
	*Control
	op       Op
	manifest *Manifest
	desired
	keeper link.ID // of the document
	proofs proofs
}

// object is what the audit says that the run is about: the one object that the manifest names, or the document that
// stands for all of them.
func (a *application) object() string {
	switch {
	case len(a.networks)+len(a.services)+len(a.endpoints) != 1:
		return object(link.KindDocument, link.ID(link.DocumentKey(manifestType, a.keeper)))
	case len(a.networks) == 1:
		return object(link.KindNetwork, a.networks[0].id)
	case len(a.services) == 1:
		return object(link.KindService, a.services[0].id)
	}
	return object(link.KindEndpoint, a.endpoints[0].id)
}

// action is what the audit calls the run: what a person does to one object is what the operation on it does.
func (a *application) action() string {
	if kind, _, ok := cutKey(a.object()); ok && a.manifest.Once && kind != link.KindDocument {
		return string(kind) + ".put"
	}
	return "manifest.apply"
}

// right is what it takes to write what the manifest names. What is pruned is judged when it is known.
func (a *application) right() Right {
	right := Read
	if len(a.networks)+len(a.endpoints) > 0 {
		right |= Connect
	}
	if len(a.services) > 0 {
		right |= Publish
	}
	return right
}

// prove looks up the names that services get and that aren't their tenant's.
func (a *application) prove(ctx context.Context) error {
	owner := a.owner(a.manifest.Subscription)
	s, err := a.view()
	if err != nil || owner.Operator {
		return err
	}
	var names []link.Name
	for _, w := range a.services {
		old, now := s.Service(w.id), link.Service{}
		w.edit(&now)
		names = append(names, unproven(owner, old, &now)...)
	}
	if len(names) > proofNames {
		return tooManyProofs
	}
	a.proofs = a.Control.prove(ctx, owner, names)
	return nil
}

// decide decides on one object after the other, each on what those before it have led to, so that the rules
// for each are those of its own operation.
func (a *application) decide(s *link.Snapshot, at time.Time) (verdict, error) {
	var all verdict
	now := s
	step := func(kind link.Kind, id link.ID, v verdict, err error) error {
		if err == nil && len(v.changes) > 0 {
			now, _, err = now.Apply(at, v.changes...)
			err = mapped(err)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, id.Last(), err)
		}
		all.changes, all.scopes, all.near = append(all.changes, v.changes...), append(all.scopes, v.scopes...), append(all.near, v.near...)
		return nil
	}
	kept, err := a.held(s)
	if err != nil {
		return all, err
	}
	if err := a.prune(s, kept, step, func() *link.Snapshot { return now }); err != nil {
		return all, err
	}
	for _, w := range a.networks {
		n := link.Network{ID: w.id}
		if old := now.Network(w.id); old != nil {
			n = *old
		}
		w.edit(&n)
		a.facet(&n, &n.Facet, Named{Name: w.name})
		v, err := a.putNetwork(now, w.id, n)
		if err := step(link.KindNetwork, w.id, v, err); err != nil {
			return all, err
		}
	}
	for _, w := range a.services {
		n := link.Service{ID: w.id}
		if old := now.Service(w.id); old != nil {
			n = *old
		}
		was := n
		w.edit(&n)
		a.facet(&n, &n.Facet, Named{Name: w.name, Retargeted: retargeted(&was, &n)})
		v, err := a.putService(now, a.op.Caller, w.id, n, a.proofs)
		if err := step(link.KindService, w.id, v, err); err != nil {
			return all, err
		}
	}
	for _, w := range a.endpoints {
		v, err := a.endpoint(now, at, w)
		if err := step(link.KindEndpoint, w.id, v, err); err != nil {
			return all, err
		}
	}
	keep, err := a.keep(s, now, kept)
	all.changes = append(all.changes, keep...)
	return all, err
}

// retargeted reports whether a service has other targets than before, or speaks another protocol to them.
func retargeted(was, now *link.Service) bool {
	return now.Protocol != was.Protocol || !slices.Equal(was.Targets, now.Targets) || !slices.Equal(was.TargetNames, now.TargetNames)
}

// endpoint decides on one endpoint. Whoever may decide on connections of the service approves with the request;
// for others it waits for the provider.
func (a *application) endpoint(s *link.Snapshot, at time.Time, w wanted[ManifestEndpoint]) (verdict, error) {
	ask, err := w.ask.endpoint(a.manifest)
	if err != nil {
		return verdict{}, err
	}
	service := ask.Endpoint.Service
	if v := s.ServiceByAlias(ask.Alias); v != nil && ask.Alias != "" {
		service = v.ID
	}
	ask.Manual = a.approver(a.op.Caller, service) == ""
	if old := s.Endpoint(w.id); old != nil {
		ask.Endpoint.Facet, ask.Endpoint.Zones = old.Facet, old.Zones
		if ask.Endpoint.Subnet == "" {
			ask.Endpoint.Subnet = old.Subnet
		}
	}
	a.facet(&ask.Endpoint, &ask.Endpoint.Facet, Named{Name: w.name, Alias: ask.Alias, Manual: ask.Manual, Message: ask.Message})
	return a.putEndpoint(s, at, a.op.Caller, w.id, ask)
}

// facet gives an object the API's part.
func (a *application) facet(o link.Object, f *link.Facet, in Named) {
	if a.manifest.Facet != nil {
		f.API = a.manifest.Facet(o, in)
	}
}

// held returns what manifests have made in the group.
func (a *application) held(s *link.Snapshot) (h held, err error) {
	if d := s.Document(manifestType, a.keeper); d != nil {
		if err = json.Unmarshal(d.API, &h); err != nil {
			err = fmt.Errorf("%w: what manifests have made: %w", link.ErrConflict, err)
		}
	}
	return h, err
}

// prune deletes what manifests have made and this one doesn't name, if it says so: endpoints before what
// they refer to. An object that has none of its UIDs is somebody else's by now.
func (a *application) prune(s *link.Snapshot, kept held, step func(link.Kind, link.ID, verdict, error) error, now func() *link.Snapshot) error {
	if !a.manifest.Prune {
		return nil
	}
	named := a.named()
	for _, kind := range []link.Kind{link.KindEndpoint, link.KindService, link.KindNetwork} {
		right := Connect
		if kind == link.KindService {
			right = Publish
		}
		for _, id := range kept.all(kind) {
			key := object(kind, id)
			if uid, ok := kept.Objects[key]; !ok || named[key] || uid != uidOf(s, kind, id) {
				continue
			}
			v, err := verdict{}, a.authorise(a.op.Caller, a.manifest.Subscription, right)
			if err == nil {
				switch kind {
				case link.KindEndpoint:
					v, err = a.deleteEndpoint(now(), id)
				case link.KindService:
					v, err = a.deleteService(now(), id)
				default:
					v, err = a.deleteNetwork(now(), id)
				}
			}
			if err := step(kind, id, v, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// named returns the objects that the manifest names, "kind/id".
func (a *application) named() map[string]bool {
	all := map[string]bool{}
	for _, w := range a.networks {
		all[object(link.KindNetwork, w.id)] = true
	}
	for _, w := range a.services {
		all[object(link.KindService, w.id)] = true
	}
	for _, w := range a.endpoints {
		all[object(link.KindEndpoint, w.id)] = true
	}
	return all
}

// all returns the objects of a kind that manifests have made, in order.
func (h held) all(kind link.Kind) []link.ID {
	var ids []link.ID
	for key := range h.Objects {
		if k, id, ok := cutKey(key); ok && k == kind {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// keep returns the change that remembers what manifests have made: what they had made and is still there, and
// what this one has made or taken over by naming it.
func (a *application) keep(before, after *link.Snapshot, kept held) ([]link.Change, error) {
	if a.manifest.Once {
		return nil, nil
	}
	next := held{Objects: map[string]string{}}
	named := a.named()
	for key := range kept.Objects {
		if kind, id, ok := cutKey(key); ok && uidOf(after, kind, id) == kept.Objects[key] && kept.Objects[key] != "" {
			next.Objects[key] = kept.Objects[key]
		}
	}
	for key := range named {
		if kind, id, ok := cutKey(key); ok {
			next.Objects[key] = uidOf(after, kind, id)
		}
	}
	body, err := json.Marshal(next)
	if err != nil {
		return nil, err
	}
	old := before.Document(manifestType, a.keeper)
	if old == nil && len(next.Objects) == 0 {
		return nil, nil
	}
	d := link.Document{Type: manifestType, ID: a.keeper, Tenant: a.owner(a.manifest.Subscription).Name, Facet: link.Facet{API: body}}
	if old != nil {
		d.Facet.UID = old.UID
	} else {
		d.Facet.UID = newUID("")
	}
	return []link.Change{link.PutDocument{Document: d}}, nil
}
