package armapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
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
	f := groupFacet(group)
	m.Facet = func(_ link.Kind, name string) json.RawMessage {
		text, err := writeFacet(facet{Name: name, Group: f.Name, Location: f.Location})
		if err != nil {
			return nil // not reached: a struct of strings
		}
		return text
	}
	p, err := do(r.Context(), r.op(), m)
	if err != nil {
		return reply{}, r.manifestProblem(err)
	}
	return ok(p), nil
}

// manifestProblem adds to an error that has a text of its own in the API which object it is about.
func (r *request) manifestProblem(err error) error {
	e := problem(r, err)
	if e.status == http.StatusBadRequest && !strings.Contains(e.message, " \"") {
		out := *e
		out.message = clean(e.message+" ("+objectOf(err)+")", 500)
		if objectOf(err) == "" {
			return e
		}
		return &out
	}
	return e
}

// objectOf returns the object that a manifest's error names, "kind name".
func objectOf(err error) string {
	_, rest, _ := strings.Cut(err.Error(), "manifest.apply of ")
	_, rest, _ = strings.Cut(rest, ": ")
	what, _, _ := strings.Cut(rest, ": ")
	if kind, _, ok := strings.Cut(what, " "); ok && (kind == "network" || kind == "service" || kind == "endpoint") {
		return what
	}
	return ""
}

// getManifest answers with the objects of the group, as a manifest that would make them.
func (r *request) getManifest() (reply, error) {
	m, err := r.api.Control.Export(r.caller, r.subscription(), strings.ToLower(r.path("group")))
	return ok(m), err
}
