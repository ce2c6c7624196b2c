package armapi

import (
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// documentGroup is the type of the documents that resource groups are. The ID of a group is that of an
// object in it which has its name.
const documentGroup = "group"

type groupBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	ManagedBy  string            `json:"managedBy,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties provisioned       `json:"properties"`
	tag        plainTag          // in the header alone: groups of Azure's show none
}

// provisioned is the properties of what has no others.
type provisioned struct {
	State string `json:"provisioningState"`
}

// groupInput is what clients send of a group.
type groupInput struct {
	Location  string             `json:"location"`
	ManagedBy string             `json:"managedBy"`
	Tags      map[string]*string `json:"tags"`
}

// group returns the document of a resource group, nil where there is none.
func (a *API) group(s *link.Snapshot, sub, group string) *link.Document {
	id, err := groupID(sub, group)
	if err != nil {
		return nil
	}
	return s.Document(documentGroup, id)
}

func groupID(sub, group string) (link.ID, error) {
	if err := checkName("resource group name", group); err != nil {
		return "", err
	}
	return link.ParseID(sub + "/" + group + "/" + group)
}

// renderGroup returns a group as it is shown, sealed.
func renderGroup(sub string, f facet) *groupBody {
	g := &groupBody{ID: "/subscriptions/" + sub + "/resourceGroups/" + f.Name, Name: f.Name, Type: "Microsoft.Resources/resourceGroups",
		Location: f.Location, Tags: f.Tags, Properties: provisioned{"Succeeded"}}
	g.tag = plainTag(fingerprint(g))
	return g
}

func groupFacet(d *link.Document) facet {
	f := facet{Name: d.ID.Last(), Location: defaultLocation}
	readFacet(d.API, &f)
	return f
}

func (r *request) getGroup() (reply, error) {
	if r.api.isCorefile(r.subscription(), r.path("group")) {
		return ok(renderGroup(r.subscription(), facet{Name: corefileGroup, Location: defaultLocation})), nil
	}
	d := r.api.group(r.view(), r.subscription(), r.path("group"))
	if d == nil {
		return reply{}, r.noGroup()
	}
	return ok(renderGroup(r.subscription(), groupFacet(d))), nil
}

// headGroup answers 204 or 404.
func (r *request) headGroup() (reply, error) {
	_, err := r.getGroup()
	return reply{status: http.StatusNoContent}, err
}

// listGroups has the Corefile's group first.
func (r *request) listGroups() (reply, error) {
	sub := r.subscription()
	groups := func(yield func(facet) bool) {
		if r.api.isCorefile(sub, corefileGroup) && !yield(facet{Name: corefileGroup, Location: defaultLocation}) {
			return
		}
		for d := range r.view().Documents(documentGroup, sub+"/") {
			if !yield(groupFacet(d)) {
				return
			}
		}
	}
	all := slices.SortedFunc(iter.Seq[facet](groups), func(a, b facet) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return page(r, slices.Values(all), func(f facet) string { return strings.ToLower(f.Name) }, func(f facet) (any, error) { return renderGroup(sub, f), nil })
}

func (r *request) putGroup() (reply, error) {
	var in groupInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	return r.editGroup(func(f *facet, there bool) error {
		if in.Location == "" && !there {
			return fail(http.StatusBadRequest, "LocationRequired", "The location property is required for this definition.")
		}
		if there && in.Location != "" && !strings.EqualFold(in.Location, f.Location) {
			return fail(http.StatusConflict, "InvalidResourceGroupLocation", "The location of resource group %s is %s and can't be changed.", quote(f.Name), quote(f.Location))
		}
		if !there {
			f.Location = clean(in.Location, 64)
		}
		f.Tags = map[string]string{}
		return mergeTags(f.Tags, in.Tags)
	})
}

func (r *request) patchGroup() (reply, error) {
	var in groupInput
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	return r.editGroup(func(f *facet, there bool) error {
		if !there {
			return r.noGroup()
		}
		if in.Tags == nil {
			return nil
		}
		f.Tags = map[string]string{}
		return mergeTags(f.Tags, in.Tags)
	})
}

// editGroup creates or changes the group of the path.
func (r *request) editGroup(change func(f *facet, there bool) error) (reply, error) {
	id, err := r.groupToWrite()
	if err != nil {
		return reply{}, err
	}
	var f facet
	res, err := r.api.Control.EditDocument(r.Context(), r.op(), r.anyWrite(), documentGroup, id, func(_ *link.Snapshot, old *link.Document) (*link.Document, error) {
		f = facet{Name: r.path("group")}
		d := link.Document{Type: documentGroup, ID: id, Tenant: r.tenantOf().Name}
		var current *groupBody
		if old != nil {
			d, f = *old, groupFacet(old)
			current = renderGroup(r.subscription(), f)
		}
		if err := r.precondition(current); err != nil {
			return nil, err
		}
		if err := change(&f, old != nil); err != nil {
			return nil, err
		}
		if d.API, err = writeFacet(f); err != nil {
			return nil, err
		}
		return &d, nil
	})
	if err != nil {
		return reply{}, err
	}
	return created(res, renderGroup(r.subscription(), f)), nil
}

// groupToWrite returns the ID of the group in the path, unless it is the Corefile's.
func (r *request) groupToWrite() (link.ID, error) {
	if r.api.isCorefile(r.subscription(), r.path("group")) {
		return "", r.writable(nil, link.Origin{})
	}
	return groupID(r.subscription(), r.path("group"))
}

// anyWrite is the right that the caller has of those that write: whoever may make objects may make a
// group for them.
func (r *request) anyWrite() control.Right {
	have := r.caller.Rights(r.subscription())
	if have&control.Publish != 0 && have&control.Connect == 0 {
		return control.Publish
	}
	return control.Connect
}

// deleteGroup refuses while the group holds objects: they are to be deleted one by one, by who may.
func (r *request) deleteGroup() (reply, error) {
	id, err := r.groupToWrite()
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditDocument(r.Context(), r.op(), r.anyWrite(), documentGroup, id, func(s *link.Snapshot, old *link.Document) (*link.Document, error) {
		if old == nil {
			return nil, nil
		}
		current := renderGroup(r.subscription(), groupFacet(old))
		if err := r.precondition(current); err != nil {
			return nil, err
		}
		for held := range r.api.resources(s, r.subscription(), r.path("group")) {
			return nil, fail(http.StatusConflict, "ResourceGroupNotEmpty", "Resource group %s holds resources and can't be deleted before they are: %s is one.", quote(r.path("group")), held.id)
		}
		return nil, nil
	})
	if err != nil {
		return reply{}, err
	}
	return deleted(res), nil
}

// Bounds of tags, as Azure has them.
const (
	maxTags     = 50
	maxTagName  = 512
	maxTagValue = 256
)

// mergeTags adds tags to those that there are; a null takes one away. The error is 400.
func mergeTags(tags map[string]string, in map[string]*string) error {
	for name, value := range in {
		switch {
		case value == nil:
			delete(tags, name)
			continue
		case name == "" || len(name) > maxTagName || clean(name, maxTagName) != name || strings.ContainsAny(name, `<>%&\?/`):
			return fail(http.StatusBadRequest, "InvalidTagName", "The tag name %s is invalid: 1 to %d characters, none of <>%%&\\?/.", quote(name), maxTagName)
		case len(*value) > maxTagValue*4 || clean(*value, maxTagValue*4) != *value:
			return fail(http.StatusBadRequest, "InvalidTagValue", "The value of tag %s is invalid: at most %d characters.", quote(name), maxTagValue)
		}
		tags[name] = *value
	}
	if len(tags) > maxTags {
		return fail(http.StatusBadRequest, "TagLimitReached", "%d tags are too many, a resource has at most %d.", len(tags), maxTags)
	}
	return nil
}

// resource is an object as the list of all resources shows it.
type resource struct {
	key, id, typ string
	facet
}

type resourceBody struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
}

func (r *request) listResources() (reply, error) {
	if g := r.path("group"); g != "" {
		if err := r.inGroup(r.view()); err != nil {
			return reply{}, err
		}
	}
	return page(r, r.api.resources(r.view(), r.subscription(), r.path("group")), func(v resource) string { return v.key },
		func(v resource) (any, error) {
			return resourceBody{ID: v.id, Name: v.Name, Type: v.typ, Location: v.Location, Tags: v.Tags}, nil
		})
}

// resources yields the objects of a subscription, or of one of its groups, in order of kind and ID.
func (a *API) resources(s *link.Snapshot, sub, group string) iter.Seq[resource] {
	return func(yield func(resource) bool) {
		for o := range s.Objects() {
			typ, id, body := resourceOf(o)
			at, in, name := a.place(id)
			if typ == "" || at != sub || group != "" && !strings.EqualFold(in, group) {
				continue
			}
			f := facet{Name: name, Group: in, Location: defaultLocation}
			readFacet(body.API, &f)
			if !yield(resource{key: fmt.Sprintf("%s/%s", o.Kind(), o.Key()), id: a.armID(typ, id, f), typ: typ, facet: f}) {
				return
			}
		}
	}
}

// resourceOf returns the type, ID and facet of what is a resource of its own; typ is "" for others.
func resourceOf(o link.Object) (typ string, id link.ID, f link.Facet) {
	switch v := o.(type) {
	case *link.Network:
		return typeNetwork, v.ID, v.Facet
	case *link.Service:
		return typeService, v.ID, v.Facet
	case *link.Endpoint:
		return typeEndpoint, v.ID, v.Facet
	case *link.PrivateZone:
		return typeZone, v.ID, v.Facet
	case *link.Document:
		if v.Type == documentBalancer {
			return typeLoadBalancer, v.ID, v.Facet
		}
	}
	return "", "", link.Facet{}
}

// documentBalancer is the type of the documents that load balancers are.
const documentBalancer = "balancer"
