package armapi

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// forceDelete deletes a service though it has connections: they become Disconnected.
func (r *request) forceDelete() (reply, error) {
	id, err := r.id("service")
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.ForceDeleteService(r.Context(), r.op(), id, func(*link.Snapshot, *link.Service) error { return nil })
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}

// actedBody is a connection or an endpoint after one of our own actions. What Azure shows of it is read at
// its own path.
type actedBody struct {
	ID         link.ID         `json:"id"`
	Properties actedProperties `json:"properties"`
}

type actedProperties struct {
	State       link.State     `json:"status"`
	LinkID      string         `json:"linkIdentifier,omitempty"` // decimal, as Azure's
	Suspended   bool           `json:"suspended"`
	Decision    *link.Decision `json:"decision,omitempty"` // to the provider
	RequestText string         `json:"requestMessage,omitempty"`
}

func renderActed(e *link.Endpoint, provider bool) actedBody {
	k := e.Connection
	b := actedBody{ID: e.ID, Properties: actedProperties{State: k.State, Suspended: k.Suspended != nil, RequestText: k.Message}}
	if k.LinkID != 0 {
		b.Properties.LinkID = strconv.FormatUint(uint64(k.LinkID), 10)
	}
	if provider {
		b.Properties.Decision = &k.Decision
		if k.Suspended != nil {
			b.Properties.Decision = k.Suspended
		}
	}
	return b
}

func (r *request) suspend() (reply, error) { return r.act(r.api.Control.Suspend) }

func (r *request) resume() (reply, error) { return r.act(r.api.Control.Resume) }

// reasonInput is the body of an action; none is as an empty one.
type reasonInput struct {
	Reason  string `json:"reason"`
	Message string `json:"requestMessage"`
}

// reason reads the body of an action, which may be left out.
func (r *request) reason() (in reasonInput, err error) {
	if r.ContentLength != 0 {
		err = r.decode(&in)
	}
	return in, err
}

// act suspends or resumes the connection of the path.
func (r *request) act(do func(context.Context, control.Op, control.Decision) (control.Result, error)) (reply, error) {
	service, err := r.id("service")
	if err != nil {
		return reply{}, err
	}
	in, err := r.reason()
	if err != nil {
		return reply{}, err
	}
	e := connectionAt(r.view(), service, r.path("connection"))
	if e == nil {
		return reply{}, r.notFound(typeService+"/privateEndpointConnections", r.path("service")+"/"+r.path("connection"))
	}
	op := r.op()
	if op.Reason == "" {
		op.Reason = in.Reason
	}
	d := control.Decision{Endpoint: e.ID, LinkID: e.Connection.LinkID, Service: service, Reason: in.Reason}
	res, err := do(r.Context(), op, d)
	if err != nil {
		return reply{}, err
	}
	return ok(renderActed(res.Snapshot.Endpoint(e.ID), true)), nil
}

// connectionAt returns the endpoint whose connection at a service has a name, "ENDPOINT.GUID"; nil where there
// is none. The GUID keeps the name from being that of an endpoint of another time.
func connectionAt(s *link.Snapshot, service link.ID, name string) *link.Endpoint {
	at := strings.LastIndexByte(name, '.')
	if at < 0 {
		return nil
	}
	for e := range s.EndpointsOf(service) {
		if e.Connection.State != link.Disconnected && strings.EqualFold(e.ID.Last(), name[:at]) && strings.EqualFold(connectionGUID(e), name[at+1:]) {
			return e
		}
	}
	return nil
}

// askAgain makes the Disconnected connection of an endpoint a new request.
func (r *request) askAgain() (reply, error) {
	id, err := r.id("endpoint")
	if err != nil {
		return reply{}, err
	}
	in, err := r.reason()
	if err != nil {
		return reply{}, err
	}
	if r.view().Endpoint(id) == nil {
		return reply{}, r.notFound(typeEndpoint, r.path("endpoint"))
	}
	res, err := r.api.Control.AskAgain(r.Context(), r.op(), id, in.Message)
	if err != nil {
		return reply{}, err
	}
	e := res.Snapshot.Endpoint(id)
	if e == nil {
		return reply{}, fail(http.StatusNotFound, "ResourceNotFound", "The endpoint was deleted meanwhile.")
	}
	return ok(renderActed(e, false)), nil
}

// connectionGUID is the GUID in the name of an endpoint's connection: its UID, or for a Corefile's a hash of its ID.
func connectionGUID(e *link.Endpoint) string {
	if b, err := hex.DecodeString(e.UID); err == nil && len(b) == 16 {
		return guid([16]byte(b))
	}
	return fingerprint(string(e.Kind()) + "/" + e.Key())
}
