package armapi

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/postern-link/postern/link"
)

// The types of Microsoft.Network that are parts of others.
const (
	typeSubnet             = typeNetwork + "/subnets"
	typeEndpointConnection = typeEndpoint + "/privateLinkServiceConnections"
	typeZoneGroup          = typeEndpoint + "/privateDnsZoneGroups"
	typeZoneConfig         = typeZoneGroup + "/privateDnsZoneConfigs"
	typeServiceConnection  = typeService + "/privateEndpointConnections"
	typeServiceAddress     = typeService + "/ipConfigurations"
	typeInterfaceAddress   = typeInterface + "/ipConfigurations"
	typeFrontend           = typeLoadBalancer + "/frontendIPConfigurations"
	typePool               = typeLoadBalancer + "/backendAddressPools"
	typeRule               = typeLoadBalancer + "/loadBalancingRules"
	typeProbe              = typeLoadBalancer + "/probes"
)

// coded is an error of a package below and the answer that a row gives for it.
type coded struct {
	err  error
	code string
}

// recode gives an error the code, with status 400, of the first row that it is a case of.
func recode(err error, rows ...coded) error {
	if _, done := errors.AsType[*apiError](err); done {
		return err
	}
	for _, row := range rows {
		if errors.Is(err, row.err) {
			return fail(http.StatusBadRequest, row.code, "%s", sentence(err.Error()))
		}
	}
	return err
}

// invalid is the answer to a body with a wrong field.
func invalid(field, format string, args ...any) error {
	return fail(http.StatusBadRequest, "InvalidRequestFormat", "%s: %s", field, sentence(fmt.Sprintf(format, args...)))
}

// noParent is the answer to a write below a resource that isn't there.
func (r *request) noParent(typ, name string) error {
	return fail(http.StatusNotFound, "ParentResourceNotFound", "Can not perform requested operation on nested resource. Parent resource '%s/%s' not found.", typ, name)
}

// unreferenced is the answer to a body that refers to what isn't there, or not for the caller.
func unreferenced(what string) error {
	return fail(http.StatusBadRequest, "InvalidResourceReference",
		"Resource %s referenced by the request was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.", quote(what))
}

// facetOf returns the API's part of an object. T embeds [facet].
func facetOf[T any](raw json.RawMessage) T {
	var f T
	readFacet(raw, &f)
	return f
}

// head returns what all resources show.
func (a *API) head(typ string, id link.ID, f facet) head {
	_, _, name := a.place(id)
	h := head{part: part{ID: a.armID(typ, id, f), Name: cmp.Or(f.Name, name), Type: typ}, Location: cmp.Or(f.Location, defaultLocation), Tags: f.Tags}
	if h.Tags == nil {
		h.Tags = map[string]string{}
	}
	return h
}

// common returns the facet that a PUT gives a resource. kept is the one that it has.
func (r *request) common(name string, kept facet, body head) (facet, error) {
	f := r.named(name, kept)
	at := location(body.Location)
	switch {
	case at == "":
		return f, fail(http.StatusBadRequest, "LocationRequired", "The location property is required for this definition.")
	case kept.Location != "" && at != kept.Location:
		return f, fail(http.StatusConflict, "InvalidResourceLocation",
			"The resource %s is in location %s already and can't be created in %s.", quote(f.Name), quote(kept.Location), quote(at))
	}
	f.Location = at
	var err error
	f.Tags, err = checkedTags(body.Tags)
	return f, err
}

// location is how a location is kept: as Azure shows them, "West Europe" is westeurope.
func location(s string) string {
	return clean(strings.ToLower(strings.ReplaceAll(s, " ", "")), 64)
}

func checkedTags(in map[string]string) (map[string]string, error) {
	given := make(map[string]*string, len(in))
	for name, value := range in {
		given[name] = &value
	}
	tags := make(map[string]string, len(in))
	return tags, mergeTags(tags, given)
}

// patchedTags reads the body of a PATCH: the tags that take the place of those that there are.
func (r *request) patchedTags() (map[string]string, error) {
	var body struct {
		Tags map[string]string `json:"tags"`
	}
	if err := r.decode(&body); err != nil {
		return nil, err
	}
	return checkedTags(body.Tags)
}

// unchanged judges the preconditions of a request against an object as it is, nil for none.
func unchanged[T, V any](r *request, old *T, show func(*T) *V) error {
	if old == nil {
		return r.precondition(nil)
	}
	return r.precondition(seal(show(old)))
}

// listed answers with the objects of the subscription, or of the group, of the path.
func listed[T, V any](r *request, from seek[T], id func(T) link.ID, show func(T) *V) (reply, error) {
	return page(r, objects(r.api, r.subscription(), r.path("group"), from, id), func(o T) string { return string(id(o)) },
		func(o T) (any, error) { return seal(show(o)), nil })
}

// segment returns a name as IDs have it, or the answer to one that is none.
func segment(what, name string) (string, error) {
	return strings.ToLower(name), checkName(what, name)
}

// guidOf returns the GUID that tells an object from others that had its ID before. Objects of a Corefile
// have one of their ID, that is the same on each node.
func guidOf(o link.Object, f link.Facet) string {
	if b, err := hex.DecodeString(f.UID); err == nil && len(b) == 16 {
		return guid([16]byte(b))
	}
	sum := sha256.Sum256([]byte(string(o.Kind()) + "/" + o.Key()))
	return guid([16]byte(sum[:16]))
}

// parseAddress reads an address, "" is none.
func parseAddress(s string) (netip.Addr, error) {
	if s = strings.TrimSpace(s); s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s isn't an IP address", quote(s))
	}
	return a.Unmap(), nil
}

// parsePrefix reads one prefix of addresses.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s isn't a prefix such as 10.1.0.0/16", quote(s))
	}
	return p, link.CheckPrefix(p)
}

// texts writes each of values.
func texts[T fmt.Stringer](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = v.String()
	}
	return all
}
