package link

import (
	"fmt"
	"slices"
	"strings"
)

// Decide approves or rejects a connection. LinkID is the one that was looked at: another one now is
// [ErrStale]. State is Approved or Rejected. Deciding what is already so changes nothing, unless it is with other
// words: then those are kept, with whose they are. No words leave the ones there are.
type Decide struct {
	Endpoint ID
	LinkID   LinkID
	State    State
	Lasting  bool // approved whatever the service's targets and names will be
	Decision Decision
}

// Disconnect is the provider's removal of a connection.
type Disconnect struct {
	Endpoint ID
	LinkID   LinkID
	Decision Decision
}

// AskAgain makes a Disconnected connection a new request: same address, new link ID.
type AskAgain struct {
	Endpoint ID
	Message  string
	Sees     bool // as in [PutEndpoint]
	Reviewed *Reviewed
}

// Suspend stops an Approved connection, [Resume] lets it go on with the same link ID.
type Suspend struct {
	Endpoint ID
	LinkID   LinkID
	Decision Decision
}

// Resume undoes [Suspend].
type Resume struct {
	Endpoint ID
	LinkID   LinkID
	Decision Decision
}

func (c Decide) apply(t *tx) error {
	e, err := t.connected(c.Endpoint, c.LinkID)
	if err != nil {
		return err
	}
	switch {
	case c.State != Approved && c.State != Rejected:
		err = fmt.Errorf("%w: a decision is %s or %s, not %q", ErrInvalid, Approved, Rejected, c.State)
	case c.State == e.Connection.State && !c.lengthens(e) && !c.rewords(e):
		return nil
	case c.State == Approved && e.Connection.State != Approved:
		err = t.mayApprove(e)
	}
	if err != nil {
		return about(e, e.ID, e.Origin, err)
	}
	return t.alter(e, func(k *Connection) {
		if k.State != c.State {
			k.Suspended = nil
		}
		if c.Decision.Reason == "" && k.State == c.State { // it lengthens
			c.Decision.Reason = k.Decision.Reason
		}
		k.State, k.Decision = c.State, t.stamped(c.Decision)
		k.Lasting = c.State == Approved && (c.Lasting || k.Lasting)
	})
}

// lengthens reports whether a decision makes an approval a lasting one.
func (c Decide) lengthens(e *Endpoint) bool {
	return c.Lasting && c.State == Approved && !e.Connection.Lasting
}

// rewords reports whether a decision comes with words other than those of the one that stands.
func (c Decide) rewords(e *Endpoint) bool {
	return c.Decision.Reason != "" && c.Decision.Reason != e.Connection.Decision.Reason
}

// mayApprove returns why a connection can't be approved.
func (t *tx) mayApprove(e *Endpoint) error {
	v := t.next.Service(e.Service)
	if p := match(v.Reject, t.next.Network(e.Network)); p != "" {
		return fmt.Errorf("%w: the reject list of service %s names %s", ErrConflict, v.ID, p)
	}
	return t.withinLimit(v, e.Tenant)
}

// withinLimit returns why a connection of a consumer, a tenant, can't be approved in addition.
func (t *tx) withinLimit(v *Service, consumer string) error {
	if v.MaxConnections > 0 && t.next.Approved(v.ID) >= v.MaxConnections {
		return fmt.Errorf("%w: the service has its limit of %d approved connections", ErrExhausted, v.MaxConnections)
	}
	if v.MaxPerConsumer > 0 && t.next.ApprovedOf(v.ID, consumer) >= v.MaxPerConsumer {
		return fmt.Errorf("%w: the consumer has its limit of %d approved connections to the service", ErrExhausted, v.MaxPerConsumer)
	}
	return nil
}

func (c Disconnect) apply(t *tx) error {
	e, err := t.connected(c.Endpoint, c.LinkID)
	if err != nil {
		return err
	}
	return t.disconnect(e, c.Decision)
}

func (t *tx) disconnect(e *Endpoint, d Decision) error {
	return t.alter(e, func(k *Connection) {
		k.State, k.LinkID, k.Decision, k.Suspended, k.Lasting = Disconnected, 0, t.stamped(d), nil, false
	})
}

func (c AskAgain) apply(t *tx) error {
	old := t.next.Endpoint(c.Endpoint)
	if old == nil {
		return about(old, c.Endpoint, Origin{}, ErrNotFound)
	}
	if s := old.Connection.State; s != Disconnected {
		return about(old, old.ID, old.Origin, fmt.Errorf("%w: the connection is %s: only a %s one can be asked for again", ErrConflict, s, Disconnected))
	}
	e := *old
	k, err := t.request(&e, asking{message: c.Message, sees: c.Sees, reviewed: c.Reviewed}, old.Connection.Asked+1)
	if err != nil {
		return about(&e, e.ID, e.Origin, err)
	}
	return t.alter(old, func(now *Connection) { *now = k })
}

func (c Suspend) apply(t *tx) error {
	e, err := t.connected(c.Endpoint, c.LinkID)
	if err != nil {
		return err
	}
	if s := e.Connection.State; s != Approved {
		return about(e, e.ID, e.Origin, fmt.Errorf("%w: the connection is %s: only an %s one can be suspended", ErrConflict, s, Approved))
	}
	if e.Connection.Suspended != nil {
		return nil
	}
	d := t.stamped(c.Decision)
	return t.alter(e, func(k *Connection) { k.Suspended = &d })
}

func (c Resume) apply(t *tx) error {
	e, err := t.connected(c.Endpoint, c.LinkID)
	if err != nil || e.Connection.Suspended == nil {
		return err
	}
	return t.alter(e, func(k *Connection) { k.Suspended = nil })
}

// connected returns the endpoint whose connection still has the link ID.
func (t *tx) connected(id ID, link LinkID) (*Endpoint, error) {
	e := t.next.Endpoint(id)
	switch {
	case e == nil:
		return nil, about(e, id, Origin{}, ErrNotFound)
	case e.Connection.State == Disconnected:
		return nil, about(e, id, e.Origin, fmt.Errorf("%w: the connection is %s", ErrStale, Disconnected))
	case e.Connection.LinkID != link:
		return nil, about(e, id, e.Origin, fmt.Errorf("%w: the connection has link ID %s, not %s", ErrStale, e.Connection.LinkID, link))
	}
	return e, nil
}

// alter replaces an endpoint by one whose connection f has changed.
func (t *tx) alter(old *Endpoint, f func(*Connection)) error {
	e := *old
	f(&e.Connection)
	if err := t.setEndpoint(old, &e); err != nil {
		return about(&e, e.ID, e.Origin, err)
	}
	return nil
}

func (t *tx) stamped(d Decision) Decision {
	d.At = t.at
	return d
}

// ask puts a new endpoint with its first request.
func (t *tx) ask(e *Endpoint, a asking) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := t.place(e); err != nil {
		return err
	}
	k, err := t.request(e, a, 1)
	if err != nil {
		return err
	}
	e.Connection = k
	return t.setEndpoint(nil, e)
}

// request returns the connection of a request that is made now. Who may not see a service is told that
// there is none. A declaration that holds both halves has nothing to hide from itself: there the
// lists say the state, as they do in [tx.reconsider] when they are edited later.
func (t *tx) request(e *Endpoint, a asking, asked uint32) (Connection, error) {
	v, n := t.next.Service(e.Service), t.next.Network(e.Network)
	both := v != nil && v.Origin.Declaration != "" && v.Origin.Declaration == e.Origin.Declaration
	switch {
	case v == nil:
		return Connection{}, fmt.Errorf("%w: service %s", ErrNotFound, e.Service)
	case n == nil:
		return Connection{}, fmt.Errorf("%w: network %s", ErrNotFound, e.Network)
	case !both && match(v.Reject, n) != "":
		return Connection{}, fmt.Errorf("%w: service %s: its reject list names %s", ErrNotFound, v.ID, match(v.Reject, n))
	case !both && !a.sees && match(v.Visible, n) == "" && (v.ID.Subscription() == "" || v.ID.Subscription() != n.ID.Subscription()):
		return Connection{}, fmt.Errorf("%w: service %s: it isn't visible to network %s", ErrNotFound, v.ID, n.ID)
	case e.Tenant != n.Tenant:
		return Connection{}, fmt.Errorf("%w: the endpoint is of tenant %q and its network of %q", ErrInvalid, e.Tenant, n.Tenant)
	}
	if rule, ok := t.next.MayHave(e, v); !ok {
		return Connection{}, fmt.Errorf("%w: service %s is not for endpoints of network %s: %s", ErrEgress, v.ID, n.ID, rule)
	}
	id, err := t.newLinkID(e.ID, asked)
	k := Connection{LinkID: id, State: Pending, Message: a.message, RequestedAt: t.at, Asked: asked}
	if p := match(v.Reject, n); p != "" {
		k.State, k.Decision = Rejected, t.stamped(Decision{Rule: rejectRule + string(p)})
	} else {
		k.State, k.Decision = t.automatic(v, n)
		if r := a.reviewed; r != nil && k.State == Approved {
			k.State, k.Decision = r.State, t.stamped(r.Decision)
		}
	}
	if k.State == Pending && k.Decision.Rule == "" && a.approver != "" {
		k.State, k.Decision = t.approvable(v, n, Decision{Actor: a.approver, Reason: "Auto Approved"})
	}
	return k, err
}

// asking is how an endpoint is asked for: see [PutEndpoint].
type asking struct {
	message  string
	sees     bool
	approver string
	reviewed *Reviewed
}

// automatic returns the state that the lists of a service give to a request from a network, and why.
func (t *tx) automatic(v *Service, n *Network) (State, Decision) {
	p := match(v.AutoApprove, n)
	if p == "" {
		return Pending, t.stamped(Decision{})
	}
	return t.approvable(v, n, Decision{Rule: autoRule + string(p)})
}

// approvable returns Approved by d, or Pending with the reason where a limit stands against it.
func (t *tx) approvable(v *Service, n *Network, d Decision) (State, Decision) {
	if err := t.withinLimit(v, n.Tenant); err != nil {
		return Pending, t.stamped(Decision{Rule: limitRule, Reason: strings.TrimPrefix(err.Error(), ErrExhausted.Error()+": ")})
	}
	return Approved, t.stamped(d)
}

// rethink takes back the approval of connections to a service that was widened, unless its lists or
// whoever approved them allow it.
func (t *tx) rethink(v *Service) error {
	for _, e := range slices.Collect(t.next.EndpointsOf(v.ID)) {
		k := e.Connection
		if k.State != Approved || k.Lasting || match(v.AutoApprove, t.next.Network(e.Network)) != "" {
			continue
		}
		d := t.stamped(Decision{Rule: widenedRule, Reason: "targets or names of the service have changed since it was approved"})
		if err := t.alter(e, func(c *Connection) { c.State, c.Decision, c.Suspended = Pending, d, nil }); err != nil {
			return err
		}
	}
	return nil
}

// widens reports whether a consumer of now may reach what one of old could not: another target, name, port
// or protocol, or less of a pin.
func widens(old, now *Service) bool {
	for _, target := range now.Targets {
		if !slices.Contains(old.Targets, target) {
			return true
		}
	}
	for _, n := range now.Names {
		if !slices.ContainsFunc(old.Names, func(o ResourceName) bool { return o.Public == n.Public }) {
			return true
		}
	}
	return now.leadsFurther(old) || now.Port != old.Port || now.Protocol != old.Protocol || now.Pin != old.Pin && now.Pin == PinAddress || now.ECHOuter && !old.ECHOuter
}

// The rules that a decision can name.
const (
	widenedRule = "service changed"
	autoRule    = "auto-approve: "
	rejectRule  = "reject: "
	limitRule   = "limit"
)

// reconsider gives the connections of a service the state that its lists now say: see [PutService].
func (t *tx) reconsider(v *Service) error {
	for _, e := range slices.Collect(t.next.EndpointsOf(v.ID)) {
		k, n := e.Connection, t.next.Network(e.Network)
		byRule := k.Decision.Actor == "" && strings.HasPrefix(k.Decision.Rule, autoRule)
		state, decision := k.State, k.Decision
		switch {
		case k.State == Pending && match(v.Reject, n) == "":
			state, decision = t.automatic(v, n)
		case k.State == Pending, k.State == Approved && v.Origin.Declaration == "" && match(v.Reject, n) != "":
			state, decision = Rejected, t.stamped(Decision{Rule: rejectRule + string(match(v.Reject, n))})
		case k.State == Approved && byRule && v.Origin.Declaration != "":
			if p := match(v.Reject, n); p != "" {
				state, decision = Rejected, t.stamped(Decision{Rule: rejectRule + string(p)})
			} else if match(v.AutoApprove, n) == "" {
				state, decision = Pending, t.stamped(Decision{Reason: "no longer approved by the lists of the service"})
			}
		case k.State == Rejected && strings.HasPrefix(k.Decision.Rule, rejectRule) && match(v.Reject, n) == "":
			state, decision = t.automatic(v, n)
		}
		if state == k.State {
			continue
		}
		if err := t.alter(e, func(c *Connection) { c.State, c.Decision, c.Suspended = state, decision, nil }); err != nil {
			return err
		}
	}
	return nil
}

// isGroup reports whether a party speaks of networks by who has them.
func isGroup(p Party) bool {
	return strings.HasPrefix(string(p), "tenant/") || strings.HasPrefix(string(p), "subscription/")
}
