package armapi

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// What clients read of a connection that nobody has said anything about.
const (
	awaiting     = "Awaiting approval"
	autoApproved = "Auto Approved"
	noAction     = "None"
)

// stateOf renders the state of a connection as both sides see it. Azure has no word for a suspended one.
func stateOf(c *link.Connection) connectionState {
	s := connectionState{Status: string(c.State), Description: c.Decision.Reason, Actions: noAction}
	switch {
	case c.Suspended != nil:
		s.Description = strings.TrimSuffix("Suspended: "+c.Suspended.Reason, ": ")
	case s.Description != "":
	case c.State == link.Pending:
		s.Description = awaiting
	case c.State == link.Approved && c.Decision.Rule != "":
		s.Description = autoApproved
	case c.State == link.Disconnected:
		s.Description = c.Decision.Rule
	}
	return s
}

// connectionName is the name of an endpoint's connection at its service: the GUID tells the endpoint from
// others that had its name before, so that an old decision doesn't find a new one.
func connectionName(e *link.Endpoint) string {
	return cmp.Or(facetOf[facet](e.API).Name, e.ID.Last()) + "." + guidOf(e, e.Facet)
}

// connected returns the endpoint with a connection of a name to a service, nil where there is none: one
// that the provider has removed is gone.
func connected(s *link.Snapshot, service link.ID, name string) *link.Endpoint {
	for e := range s.EndpointsOf(service) {
		// The GUID first: it is had without reading the endpoint's facet.
		if e.Connection.State != link.Disconnected && strings.HasSuffix(strings.ToLower(name), guidOf(e, e.Facet)) && strings.EqualFold(connectionName(e), name) {
			return e
		}
	}
	return nil
}

// connections is the source of the endpoints that are connected to a service.
func connections(s *link.Snapshot, service link.ID) source[*link.Endpoint] {
	return func(after string) iter.Seq[*link.Endpoint] {
		return func(yield func(*link.Endpoint) bool) {
			for e := range s.EndpointsOfFrom(service, link.ID(after)) {
				if e.Connection.State != link.Disconnected && !yield(e) {
					return
				}
			}
		}
	}
}

func (r *request) getConnection() (reply, error) {
	v, err := r.service()
	if err != nil {
		return reply{}, err
	}
	e := connected(r.view(), v.ID, r.path("connection"))
	if e == nil {
		return reply{}, r.noConnection()
	}
	return ok(seal(r.api.showConnection(v, e))), nil
}

func (r *request) noConnection() error {
	return r.notFound(typeService, r.path("service")+"/privateEndpointConnections/"+r.path("connection"))
}

func (r *request) listConnections() (reply, error) {
	v, err := r.service()
	if err != nil {
		return reply{}, err
	}
	return page(r, connections(r.view(), v.ID), func(e *link.Endpoint) string { return string(e.ID) },
		func(e *link.Endpoint) (any, error) { return seal(r.api.showConnection(v, e)), nil })
}

// putConnection approves or rejects. A connection is made by its consumer, never here.
func (r *request) putConnection() (reply, error) {
	id, err := r.id("service")
	if err != nil {
		return reply{}, err
	}
	var body serviceConnection
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	d, err := wantedDecision(&body)
	if err != nil {
		return reply{}, err
	}
	// The endpoint is looked up once: what is decided on is this one, with its link ID if the body says none.
	// Whether it is still the one of the name is seen at the commit.
	v, e := r.view().Service(id), connected(r.view(), id, r.path("connection"))
	if v == nil || e == nil {
		return reply{}, r.noConnection()
	}
	d.Service, d.Endpoint = id, e.ID
	if looked := body.Properties.Endpoint.ID; looked != "" && !strings.EqualFold(strings.TrimRight(looked, "/"), r.api.endpointID(e)) {
		return reply{}, fmt.Errorf("%w: the connection is not of private endpoint %s", control.ErrPrecondition, quote(looked))
	}
	// Words that nobody said, which a connection is shown with, are nobody's when they come back.
	if k := &e.Connection; k.State == d.State && d.Reason == stateOf(k).Description {
		d.Reason = k.Decision.Reason
	}
	d.If = r.still(id)
	res, err := r.api.Control.Decide(r.Context(), r.op(), d)
	if err != nil {
		return reply{}, recode(err, coded{link.ErrExhausted, "PrivateEndpointConnectionLimitReached"})
	}
	if r.dry() {
		return r.planned(res)
	}
	return ok(seal(r.api.showConnection(res.Snapshot.Service(id), res.Snapshot.Endpoint(e.ID)))), nil
}

// still returns what a decision on the connection of the path, to a service, asks at its commit.
func (r *request) still(service link.ID) func(*link.Snapshot, *link.Endpoint) error {
	return func(s *link.Snapshot, e *link.Endpoint) error {
		v := s.Service(service)
		if v == nil || e == nil || e.Service != service || e.Connection.State == link.Disconnected || !strings.EqualFold(connectionName(e), r.path("connection")) {
			return r.noConnection()
		}
		return r.precondition(seal(r.api.showConnection(v, e)))
	}
}

// wantedDecision reads the body of a PUT.
func wantedDecision(body *serviceConnection) (control.Decision, error) {
	p := &body.Properties
	d := control.Decision{Reason: p.State.Description}
	switch {
	case strings.EqualFold(p.State.Status, string(link.Approved)):
		d.State, d.Lasting = link.Approved, p.Lasting
	case strings.EqualFold(p.State.Status, string(link.Rejected)):
		d.State = link.Rejected
	default:
		return d, invalid("properties.privateLinkServiceConnectionState.status", "%s is neither Approved nor Rejected", quote(p.State.Status))
	}
	if p.LinkIdentifier != "" {
		n, err := strconv.ParseUint(p.LinkIdentifier, 10, 32)
		if err != nil {
			return d, invalid("properties.linkIdentifier", "%s isn't a number of 32 bits", quote(p.LinkIdentifier))
		}
		d.LinkID = link.LinkID(n)
	}
	return d, nil
}

// deleteConnection removes a connection: its endpoint stays with the consumer, Disconnected.
func (r *request) deleteConnection() (reply, error) {
	id, err := r.id("service")
	if err != nil {
		return reply{}, err
	}
	e := connected(r.view(), id, r.path("connection"))
	if e == nil {
		if err := r.precondition(nil); err != nil {
			return reply{}, err
		}
		return reply{status: http.StatusNoContent}, nil
	}
	res, err := r.api.Control.Disconnect(r.Context(), r.op(), control.Decision{Service: id, Endpoint: e.ID, If: r.still(id)})
	if wrong, answered := errors.AsType[*apiError](err); errors.Is(err, link.ErrStale) || answered && wrong.status == http.StatusNotFound {
		return reply{status: http.StatusNoContent}, nil // somebody was faster
	}
	if err != nil {
		return reply{}, err
	}
	if r.dry() {
		return r.planned(res)
	}
	return deleted(res), nil
}

// showConnection renders a connection for the provider of the service.
func (a *API) showConnection(v *link.Service, e *link.Endpoint) *serviceConnection {
	name := connectionName(e)
	c := &serviceConnection{part: part{ID: a.serviceID(v) + "/privateEndpointConnections/" + name, Name: name, Type: typeServiceConnection}}
	p := &c.Properties
	p.ProvisioningState = succeeded
	p.Endpoint.ID = a.endpointID(e)
	p.Location = cmp.Or(facetOf[facet](e.API).Location, defaultLocation)
	p.LinkIdentifier = strconv.FormatUint(uint64(e.Connection.LinkID), 10)
	p.State, p.Lasting, p.Suspended = stateOf(&e.Connection), e.Connection.Lasting, e.Connection.Suspended != nil
	if k := &e.Connection; k.State == link.Pending && k.Message != "" && p.State.Description == awaiting {
		p.State.Description = k.Message // what the consumer tells who decides; Azure has no other place for it
	}
	return c
}
