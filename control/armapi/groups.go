package armapi

import (
	"iter"
	"net/http"
	"strings"
	"unicode/utf8"

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
	// Nothing is declared with this ID: it is that of the one group that is there by itself.
	corefile := &link.Document{ID: corefileGroup}
	all := func(after string) iter.Seq[*link.Document] {
		return func(yield func(*link.Document) bool) {
			if after == "" && r.api.isCorefile(sub, corefileGroup) && !yield(corefile) {
				return
			}
			behind := link.ID(after)
			if behind == corefile.ID {
				behind = ""
			}
			for d := range r.view().DocumentsFrom(documentGroup, sub+"/", behind) {
				if !yield(d) {
					return
				}
			}
		}
	}
	return page(r, all, func(d *link.Document) string { return string(d.ID) },
		func(d *link.Document) (any, error) { return renderGroup(sub, groupFacet(d)), nil })
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
		for v := range r.api.resources(s, r.subscription(), r.path("group"))("") {
			return nil, fail(http.StatusConflict, "ResourceGroupNotEmpty", "Resource group %s holds resources and can't be deleted before they are: %s is one.", quote(r.path("group")), v.id)
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
	// maxSetting bounds the tags that are ours, which may be lists: Azure's clients bound what they send themselves.
	maxSetting = 4 << 10 // bytes
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
		}
		most, unit, size := maxTagValue, "characters", utf8.RuneCountInString(*value)
		if len(name) > len(tagPrefix) && strings.EqualFold(name[:len(tagPrefix)], tagPrefix) {
			most, unit, size = maxSetting, "bytes", len(*value)
		}
		if size > most || clean(*value, len(*value)) != *value {
			return fail(http.StatusBadRequest, "InvalidTagValue", "The value of tag %s is invalid: at most %d %s.", quote(name), most, unit)
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

// resources is the source of the objects of a subscription, or of one of its groups, by kind and ID.
func (a *API) resources(s *link.Snapshot, sub, group string) source[resource] {
	return func(after string) iter.Seq[resource] {
		return func(yield func(resource) bool) {
			_ = eachResource(a, sub, group, after, documentsOf(s, documentBalancer), yield) &&
				eachResource(a, sub, group, after, s.EndpointsFrom, yield) &&
				eachResource(a, sub, group, after, s.NetworksFrom, yield) &&
				eachResource(a, sub, group, after, s.ServicesFrom, yield) &&
				eachResource(a, sub, group, after, s.ZonesFrom, yield)
		}
	}
}

// eachResource passes on the objects of one kind behind a key, and reports whether yield wants more. Kinds
// are to come in order of their names.
func eachResource[T link.Object](a *API, sub, group, after string, from seek[T], yield func(resource) bool) bool {
	var none T
	at, left := startOf(after, none.Kind())
	if !left {
		return true
	}
	for o := range objects(a, sub, group, from, func(o T) link.ID { _, id, _ := resourceOf(o); return id })(at) {
		typ, id, body := resourceOf(o)
		_, in, name := a.place(id)
		f := facet{Name: name, Group: in, Location: defaultLocation}
		readFacet(body.API, &f)
		if !yield(resource{key: string(o.Kind()) + "/" + string(id), id: a.armID(typ, id, f), typ: typ, facet: f}) {
			return false
		}
	}
	return true
}

// documentsOf yields documents of one type as other objects are yielded.
func documentsOf(s *link.Snapshot, typ string) seek[*link.Document] {
	return func(prefix string, after link.ID) iter.Seq[*link.Document] {
		return s.DocumentsFrom(typ, prefix, after)
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
