package armapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/postern-link/postern/control"
)

func (r *request) postPlan() (reply, error) { return r.manifest(r.api.Control.Plan) }

func (r *request) postApply() (reply, error) { return r.manifest(r.api.Control.Apply) }

// manifest plans or applies the manifest of the body. Unlike resources of Azure's, which clients send back
// whole, it has no fields that mean nothing: unknown ones are refused.
func (r *request) manifest(do func(context.Context, control.Op, control.Manifest) (control.Plan, error)) (reply, error) {
	var raw json.RawMessage
	if err := r.decode(&raw); err != nil {
		return reply{}, err
	}
	var m control.Manifest
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return reply{}, fail(http.StatusBadRequest, "InvalidRequestFormat", "The manifest is invalid: %s", sentence(clean(strings.TrimPrefix(err.Error(), "json: "), 200)))
	}
	if m.Subscription == "" {
		m.Subscription = r.subscription()
	}
	if !strings.EqualFold(m.Subscription, r.subscription()) {
		return reply{}, fail(http.StatusBadRequest, "InvalidRequestFormat", "The manifest is of subscription %s, the path of %s.", quote(m.Subscription), quote(r.subscription()))
	}
	m.Subscription = r.subscription()
	group := r.api.group(r.view(), m.Subscription, m.Group)
	if group == nil {
		return reply{}, fail(http.StatusNotFound, "ResourceGroupNotFound", "Resource group %s could not be found.", quote(m.Group))
	}
	m.Facet = r.api.facets(groupFacet(group))
	p, err := do(r.Context(), r.op(), m)
	if err != nil {
		return reply{}, r.manifestProblem(err)
	}
	return ok(p), nil
}

// manifestProblem adds which object an error is about, where the API has words of its own for it.
func (r *request) manifestProblem(err error) error {
	e := problem(r, err)
	what, _, _ := strings.Cut(err.Error(), ": ")
	kind, name, ok := strings.Cut(what, " ")
	object := ok && (kind == "network" || kind == "service" || kind == "endpoint")
	if !object || e.status >= http.StatusInternalServerError || strings.Contains(e.message, name) {
		return e
	}
	out := *e
	out.message = sentence(clean(what, 100)) + " " + e.message
	return &out
}

// getManifest answers with the objects of the group, as a manifest that would make them.
func (r *request) getManifest() (reply, error) {
	m, err := r.api.Control.Export(r.caller, r.subscription(), strings.ToLower(r.path("group")))
	return ok(m), err
}
