package armapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// corefileGroup is the resource group, in the operator's first subscription, that shows the objects of the
// Corefile. It is there by itself and nothing is written in it.
const corefileGroup = "corefile"

// defaultLocation is the location of what was made without one.
const defaultLocation = "local"

// facet is what every type of the API keeps of an object beyond what the domain knows: the names as
// they were first written, since IDs are in lower case. Types with more embed it.
type facet struct {
	Name     string            `json:"name,omitempty"`
	Group    string            `json:"group,omitempty"`
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// readFacet reads the API's part of an object into v, a pointer to a struct that embeds [facet]. Without
// one, as of a Corefile's object, v stays as it is.
func readFacet(from json.RawMessage, v any) {
	if len(from) > 0 {
		_ = json.Unmarshal(from, v) // it is what writeFacet wrote, or a newer version: the rest of it is of use
	}
}

// writeFacet returns the API's part of an object.
func writeFacet(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("the API's part of an object: %w", err)
	}
	return b, nil
}

// named returns the part that all types have, of an object that a request makes: names as in the path. kept
// is that of the object as it was, whose names stay.
func (r *request) named(name string, kept facet) facet {
	return facet{
		Name: cmp.Or(kept.Name, r.path(name)), Group: cmp.Or(kept.Group, r.path("group")),
		Location: cmp.Or(kept.Location, defaultLocation), Tags: kept.Tags,
	}
}

// The types that have an ARM ID, as "namespace/type".
const (
	typeNetwork      = "Microsoft.Network/virtualNetworks"
	typeEndpoint     = "Microsoft.Network/privateEndpoints"
	typeService      = "Microsoft.Network/privateLinkServices"
	typeInterface    = "Microsoft.Network/networkInterfaces"
	typeLoadBalancer = "Microsoft.Network/loadBalancers"
	typeZone         = "Microsoft.Network/privateDnsZones"
)

// armID returns the ARM ID of an object, in the spelling of its facet; one of a Corefile is in the
// operator's first subscription.
func (a *API) armID(typ string, id link.ID, f facet) string {
	sub, group, name := a.place(id)
	return fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/%s/%s", sub, cmp.Or(f.Group, group), typ, cmp.Or(f.Name, name))
}

// place returns where the API shows an object.
func (a *API) place(id link.ID) (sub, group, name string) {
	if parts := strings.Split(string(id), "/"); len(parts) == 3 {
		return parts[0], parts[1], parts[2]
	}
	return a.operatorSubscription(), corefileGroup, string(id)
}

// operatorSubscription returns the one that the Corefile's objects are in, "" where there is none.
func (a *API) operatorSubscription() string {
	for _, t := range a.Directory.Tenants() {
		if t.Operator && len(t.Subscriptions) > 0 {
			return t.Subscriptions[0].ID
		}
	}
	return ""
}

// objectID is the inverse of place. The error is 400 and says what is no name.
func (a *API) objectID(sub, group, name string) (link.ID, error) {
	if err := checkName("name", name); err != nil {
		return "", err
	}
	if strings.EqualFold(group, corefileGroup) && strings.ToLower(sub) == a.operatorSubscription() {
		return link.ParseID(name)
	}
	if err := checkName("resource group name", group); err != nil {
		return "", err
	}
	return link.ParseID(sub + "/" + group + "/" + name)
}

// nameForm is what all types of Microsoft.Network have in common.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?$`)

// checkName refuses what isn't a name of Azure's.
func checkName(what, name string) error {
	if nameForm.MatchString(name) {
		return nil
	}
	return fail(http.StatusBadRequest, "InvalidResourceName", "The %s %s is invalid. It has 1 to 80 letters, digits, '_', '.' and '-', begins with a letter or digit and ends with a letter, digit or '_'.", what, quote(name))
}

// reference is an ARM ID in a request: an object and, where Child isn't "", a part of it such as a subnet.
type reference struct {
	Type      string // "namespace/type", lower case
	ID        link.ID
	ChildType string // lower case, such as "subnets"
	Child     string // as written
}

// reference reads the ARM ID of an object of one of the types, or of a child "type/child" of one. The
// error is 400 and names the field.
func (a *API) reference(field, armID string, types ...string) (reference, error) {
	bad := fail(http.StatusBadRequest, "InvalidRequestFormat", "%s: %s is no resource ID of %s.", field, quote(armID), strings.Join(types, " or "))
	path, ok := segments((&url.URL{Path: armID}).EscapedPath())
	if !ok || len(armID) > 1024 || (len(path) != 8 && len(path) != 10) || !strings.EqualFold(path[0], "subscriptions") ||
		!strings.EqualFold(path[2], "resourceGroups") || !strings.EqualFold(path[4], "providers") {
		return reference{}, bad
	}
	ref := reference{Type: strings.ToLower(path[5] + "/" + path[6])}
	whole := ref.Type
	if len(path) == 10 {
		ref.ChildType, ref.Child = strings.ToLower(path[8]), path[9]
		whole += "/" + ref.ChildType
	}
	for _, t := range types {
		if strings.EqualFold(t, whole) {
			var err error
			if ref.ID, err = a.objectID(path[1], path[3], path[7]); err != nil {
				return reference{}, bad
			}
			return ref, nil
		}
	}
	return reference{}, bad
}

// inGroup returns an error unless the resource group in the path is there. Who makes an object asks it again
// in the edit, since a group that is empty can be deleted at any time.
func (r *request) inGroup(s *link.Snapshot) error {
	if r.api.isCorefile(r.subscription(), r.path("group")) || r.api.group(s, r.subscription(), r.path("group")) != nil {
		return nil
	}
	return r.noGroup()
}

func (r *request) noGroup() error {
	return fail(http.StatusNotFound, "ResourceGroupNotFound", "Resource group %s could not be found.", quote(r.path("group")))
}

// writable returns an error unless an object may be written in the resource group of the path: it must be there,
// and not be the Corefile's. origin is that of the object as it is, the zero one where there is none. To be
// asked in the edit.
func (r *request) writable(s *link.Snapshot, origin link.Origin) error {
	if !r.api.isCorefile(r.subscription(), r.path("group")) && origin.Declaration == "" {
		return r.inGroup(s)
	}
	if origin.Declaration == "" || !r.caller.Operator {
		return fail(http.StatusConflict, "ScopeLocked", "The resource group %s holds what the operator's Corefile declares and can't be written to.", quote(corefileGroup))
	}
	return fail(http.StatusConflict, "ScopeLocked", "The resource is declared in %s by %s and can't be changed here.", origin, origin.Declaration)
}

// isCorefile reports whether a group is the one of the Corefile's objects.
func (a *API) isCorefile(sub, group string) bool {
	return strings.EqualFold(group, corefileGroup) && sub != "" && sub == a.operatorSubscription()
}

// tenantOf returns the tenant that the subscription of the path belongs to.
func (r *request) tenantOf() control.Tenant {
	t, _ := r.api.Directory.SubscriptionOwner(r.subscription())
	return t
}
