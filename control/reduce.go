package control

import (
	"encoding/json"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// Who acted, where it is the other half of a connection whose people are nobody's business here, or somebody
// of another tenant who was refused.
const (
	byProvider = "(provider)"
	byConsumer = "(consumer)"
	byOther    = "(other tenant)"
)

// reduce returns an entry as one of the subscriptions that it concerns may see it: its own objects before
// and after; of a consumer's endpoint the connection, for the provider; nothing of the service, for the
// consumer. Who acted for the other half isn't named.
func (a *auditor) reduce(e store.Entry) store.Entry {
	if a.attempt(e) {
		return a.reduceAttempt(e)
	}
	r := e
	r.Tenant = ""
	r.Scopes, r.Changes, r.Diffs = []string{a.query.Subscription}, nil, nil
	connected := map[string]bool{} // objects of others that may be named: endpoints of own services
	for _, d := range e.Diffs {
		if own, ok := a.reduceDiff(d); ok {
			r.Diffs = append(r.Diffs, own)
			connected[own.Object] = true
		}
	}
	for _, change := range e.Changes {
		object, _, _ := strings.Cut(change, ": ")
		if a.sees.holdsKey(object) || connected[object] {
			r.Changes = append(r.Changes, change)
		}
	}
	if !a.ours(e) {
		r.From, r.Reason, r.Actor = "", "", byConsumer
		if providerActs(e.Action) {
			r.Actor = byProvider
		}
	}
	if !a.sees.holdsKey(e.Object) && !connected[e.Object] {
		r.Object = ""
		if len(r.Diffs) > 0 {
			r.Object = r.Diffs[0].Object
		}
	}
	return r
}

// attempt reports whether an entry is about what somebody of another tenant tried and was refused.
func (a *auditor) attempt(e store.Entry) bool {
	me, ok := a.control.config.Tenants.SubscriptionOwner(a.query.Subscription)
	return e.Result == store.Refused && (!ok || e.Tenant != me.Name)
}

// reduceAttempt returns an attempt of another tenant's without any word that who tried has chosen.
func (a *auditor) reduceAttempt(e store.Entry) store.Entry {
	r := store.Entry{ID: e.ID, Revision: e.Revision, At: e.At, Actor: byOther, Action: e.Action, Result: e.Result, Scopes: []string{a.query.Subscription}}
	r.Object, _, _ = strings.Cut(e.Object, "/")
	if e.Action == actionSummary {
		r.Reason = e.Reason
		return r
	}
	for _, k := range audited {
		if strings.HasPrefix(e.Reason, k.err.Error()) {
			r.Reason = k.err.Error()
		}
	}
	return r
}

// ours reports whether whoever acted is of the tenant that looks: where all that the entry concerns is, or
// the half of the connection that acted.
func (a *auditor) ours(e store.Entry) bool {
	tenants := a.control.config.Tenants
	me, ok := tenants.SubscriptionOwner(a.query.Subscription)
	if !ok {
		return false
	}
	if e.Result == store.Refused {
		return e.Tenant == me.Name
	}
	foreign := false
	for _, sub := range e.Scopes {
		if t, ok := tenants.SubscriptionOwner(sub); !ok || t.Name != me.Name {
			foreign = true
		}
	}
	if !foreign {
		return true
	}
	if !strings.HasPrefix(e.Action, "connection.") {
		return a.sees.holdsKey(e.Object)
	}
	// A decision on a connection is named by its endpoint, which the consumer has and the provider hasn't.
	return !a.sees.holdsKey(e.Object)
}

// providerActs reports whether an action is that of the provider's half.
func providerActs(action string) bool {
	return strings.HasPrefix(action, "connection.") || strings.HasPrefix(action, "service.")
}

// reduceDiff returns what the scope may know of an object's change.
func (a *auditor) reduceDiff(d store.Diff) (store.Diff, bool) {
	kind, _, _ := strings.Cut(d.Object, "/")
	own := a.sees.holdsKey(d.Object)
	if kind != string(link.KindEndpoint) {
		return d, own
	}
	var ok [2]bool
	d.Before, ok[0] = a.reduceEndpoint(d.Before, own)
	d.After, ok[1] = a.reduceEndpoint(d.After, own)
	return d, ok[0] || ok[1]
}

// reduceEndpoint returns an endpoint as its consumer may see it, or as the provider of its service may.
func (a *auditor) reduceEndpoint(body json.RawMessage, own bool) (json.RawMessage, bool) {
	var short store.Digest
	if json.Unmarshal(body, &short) == nil && short.SHA256 != "" {
		return body, own || a.sees.holds(short.Service)
	}
	var e link.Endpoint
	if len(body) == 0 || json.Unmarshal(body, &e) != nil {
		return nil, false
	}
	provider := a.sees.holds(e.Service)
	switch {
	case !own && !provider:
		return nil, false
	case !own:
		text, err := json.Marshal(struct {
			ID         link.ID         `json:"id"`
			Service    link.ID         `json:"service"`
			Connection link.Connection `json:"connection"`
		}{e.ID, e.Service, e.Connection})
		return text, err == nil
	case provider:
		return body, true
	}
	k := &e.Connection
	k.Decision = withoutProvider(k.Decision)
	if k.Suspended != nil {
		d := withoutProvider(*k.Suspended)
		k.Suspended = &d
	}
	e.Service = a.service(e.Service)
	e.API = nil // has the consumer's own words only, and the service's ID where it asked by alias
	text, err := json.Marshal(e)
	return text, err == nil
}

// service returns what a service is called in an entry for the caller, "" where nobody can say any more.
func (a *auditor) service(id link.ID) link.ID {
	s, err := a.control.view()
	if err != nil {
		return ""
	}
	return a.sees.service(s, id)
}

// withoutProvider returns a decision without who made it and which entry of a list it was.
func withoutProvider(d link.Decision) link.Decision {
	d.Actor = ""
	d.Rule, _, _ = strings.Cut(d.Rule, ":")
	return d
}
