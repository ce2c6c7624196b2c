package armapi

import (
	"context"

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
	if r.dry() {
		return r.planned(res)
	}
	return deleted(res), nil
}

func (r *request) suspend() (reply, error) { return r.act(r.api.Control.Suspend) }

func (r *request) resume() (reply, error) { return r.act(r.api.Control.Resume) }

// wordsInput is the body of an action; none is as an empty one.
type wordsInput struct {
	Reason  string `json:"reason"`
	Message string `json:"requestMessage"`
}

// words reads the body of an action, which may be left out.
func (r *request) words() (in wordsInput, err error) {
	if r.ContentLength != 0 {
		err = r.decode(&in)
	}
	return in, err
}

// act suspends or resumes the connection of the path, and answers with it. If-Match is judged against the
// connection as Azure's operations show it.
func (r *request) act(do func(context.Context, control.Op, control.Decision) (control.Result, error)) (reply, error) {
	v, err := r.service()
	if err != nil {
		return reply{}, err
	}
	in, err := r.words()
	if err != nil {
		return reply{}, err
	}
	e := connected(r.view(), v.ID, r.path("connection"))
	if e == nil {
		return reply{}, r.noConnection()
	}
	op := r.op()
	if op.Reason == "" {
		op.Reason = in.Reason
	}
	d := control.Decision{Endpoint: e.ID, LinkID: e.Connection.LinkID, Service: v.ID, Reason: in.Reason, If: r.still(v.ID)}
	res, err := do(r.Context(), op, d)
	if err != nil {
		return reply{}, err
	}
	if r.dry() {
		return r.planned(res)
	}
	if e = res.Snapshot.Endpoint(e.ID); e == nil {
		return reply{}, r.noConnection()
	}
	return ok(seal(r.api.showConnection(v, e))), nil
}

// askAgain makes the Disconnected connection of an endpoint a new request, and answers with the endpoint.
func (r *request) askAgain() (reply, error) {
	e, err := r.endpoint()
	if err != nil {
		return reply{}, err
	}
	in, err := r.words()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.AskAgain(r.Context(), r.op(), e.ID, in.Message)
	if err != nil {
		return reply{}, err
	}
	if e = res.Snapshot.Endpoint(e.ID); e == nil {
		return reply{}, r.notFound(typeEndpoint, r.path("endpoint"))
	}
	return ok(seal(r.api.showEndpoint(res.Snapshot, e))), nil
}
