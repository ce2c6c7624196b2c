package armapi

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// endpointFacet is what the API keeps of an endpoint beside what the domain does.
type endpointFacet struct {
	facet
	Connection string `json:"connection,omitempty"` // its name
	Manual     bool   `json:"manual,omitempty"`     // in which of the two lists the connection is
	// Service is the alias or resource ID as the consumer wrote it, and reads it again.
	Service   string            `json:"service,omitempty"`
	Message   string            `json:"message,omitempty"`
	Interface string            `json:"interface,omitempty"` // the name that the consumer chose for it
	Addresses []endpointAddress `json:"addresses,omitempty"`
	ZoneNames []string          `json:"zoneNames,omitempty"` // of the zone group and its configs, as first spelled
}

// maxRequestMessage is how many characters a request message has at most.
const maxRequestMessage = 140

func (r *request) getEndpoint() (reply, error) {
	e, err := r.endpoint()
	if err != nil {
		return reply{}, err
	}
	return ok(seal(r.api.showEndpoint(r.view(), e))), nil
}

// endpoint returns the endpoint of the path.
func (r *request) endpoint() (*link.Endpoint, error) {
	id, err := r.id("endpoint")
	if err != nil {
		return nil, err
	}
	e := r.view().Endpoint(id)
	if e == nil {
		return nil, r.notFound(typeEndpoint, r.path("endpoint"))
	}
	return e, nil
}

func (r *request) listEndpoints() (reply, error) {
	return listed(r, r.view().EndpointsFrom, func(e *link.Endpoint) link.ID { return e.ID }, r.endpointView(r.view()))
}

// endpointView renders endpoints of a snapshot.
func (r *request) endpointView(s *link.Snapshot) func(*link.Endpoint) *privateEndpoint {
	return func(e *link.Endpoint) *privateEndpoint { return r.api.showEndpoint(s, e) }
}

func (r *request) putEndpoint() (reply, error) {
	id, err := r.id("endpoint")
	if err != nil {
		return reply{}, err
	}
	var body privateEndpoint
	if err := r.decode(&body); err != nil {
		return reply{}, err
	}
	want, err := r.wantedEndpoint(&body)
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditEndpoint(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Endpoint) (*control.Ask, error) {
		if err := unchanged(r, old, r.endpointView(s)); err != nil {
			return nil, err
		}
		if old == nil {
			if err := r.writable(s, link.Origin{}); err != nil {
				return nil, err
			}
			return r.newEndpoint(s, id, &body, want)
		}
		if err := r.writable(s, old.Origin); err != nil {
			return nil, err
		}
		return r.changedEndpoint(s, old, &body, want)
	})
	if err != nil {
		return reply{}, addressProblem(err)
	}
	return created(res, seal(r.api.showEndpoint(res.Snapshot, res.Snapshot.Endpoint(id)))), nil
}

// addressProblem gives errors about addresses in subnets Azure's codes.
func addressProblem(err error) error {
	return recode(err,
		coded{link.ErrOutside, "PrivateIPAddressNotInSubnet"},
		coded{link.ErrReserved, "PrivateIPAddressInReservedRange"},
		coded{link.ErrTaken, "PrivateIPAddressIsAllocated"},
		coded{link.ErrExhausted, "SubnetIsFull"},
	)
}

// endpointWish is what the body of a PUT says, as far as that needs no look at the state.
type endpointWish struct {
	endpointFacet
	network  link.ID
	subnet   string // as written
	subnetID string
	service  link.ID // "" where alias isn't
	alias    string
	address  netip.Addr
}

// wantedEndpoint reads the body of a PUT. What it says of the state of the connection is not looked at: a
// consumer doesn't approve itself.
func (r *request) wantedEndpoint(body *privateEndpoint) (endpointWish, error) {
	var w endpointWish
	p := &body.Properties
	ref, err := r.api.reference("properties.subnet.id", p.Subnet.ID, typeSubnet)
	if err != nil {
		return w, err
	}
	w.network, w.subnet, w.subnetID = ref.ID, ref.Child, p.Subnet.ID
	if len(p.Automatic)+len(p.Manual) != 1 {
		return w, invalid("properties", "exactly one connection is expected, in privateLinkServiceConnections or in manualPrivateLinkServiceConnections")
	}
	w.Manual = len(p.Manual) == 1
	if err := r.wantedConnection(&w, slices.Concat(p.Automatic, p.Manual)[0]); err != nil {
		return w, err
	}
	if p.InterfaceName != "" {
		if err := checkName("network interface name", p.InterfaceName); err != nil {
			return w, err
		}
		w.Interface = p.InterfaceName
	}
	if len(p.SecurityGroups) > 0 {
		return w, invalid("properties.applicationSecurityGroups", "there are none here: the tag %sallow says which clients may connect", tagPrefix)
	}
	if strings.EqualFold(p.IPVersion, "DualStack") {
		return w, invalid("properties.ipVersionType", "an endpoint has one address: IPv4 or IPv6")
	}
	if len(p.IPConfigurations) > 1 {
		return w, invalid("properties.ipConfigurations", "an endpoint has one address, %d are given", len(p.IPConfigurations))
	}
	for _, c := range p.IPConfigurations {
		if w.address, err = parseAddress(c.Properties.Address); err != nil {
			return w, invalid("properties.ipConfigurations", "%v", err)
		}
		c.Name = clean(c.Name, 80)
		c.Properties.Group, c.Properties.Member = clean(c.Properties.Group, 80), clean(c.Properties.Member, 80)
		c.Properties.Address = "" // the endpoint's
		w.Addresses = append(w.Addresses, c)
	}
	return w, nil
}

// wantedConnection reads the one connection of a body.
func (r *request) wantedConnection(w *endpointWish, c endpointConnection) error {
	if c.Name != "" {
		if err := checkName("connection name", c.Name); err != nil {
			return err
		}
	}
	w.Connection = cmp.Or(c.Name, r.path("endpoint"))
	p := &c.Properties
	if slices.ContainsFunc(p.Groups, func(s string) bool { return s != "" }) {
		return invalid("groupIds", "a private link service has no groups")
	}
	if w.Manual {
		w.Message = p.Message
		if n := utf8.RuneCountInString(w.Message); n > maxRequestMessage || clean(w.Message, len(w.Message)) != w.Message {
			return invalid("requestMessage", "it has %d characters; at most %d are allowed, none of them a control character", n, maxRequestMessage)
		}
	}
	switch w.Service = p.Service; {
	case p.Service == "":
		return invalid("privateLinkServiceId", "it is missing")
	case !strings.Contains(p.Service, "/"):
		w.alias = strings.ToLower(p.Service)
		return nil
	}
	ref, err := r.api.reference("privateLinkServiceId", p.Service, typeService)
	if err != nil {
		return err
	}
	path, _ := segments(p.Service)
	w.service, w.Service = ref.ID, r.api.armID(typeService, ref.ID, facet{Group: path[3], Name: path[7]})
	return nil
}

// newEndpoint is the request for an endpoint that isn't there yet.
func (r *request) newEndpoint(s *link.Snapshot, id link.ID, body *privateEndpoint, w endpointWish) (*control.Ask, error) {
	var err error
	if w.facet, err = r.common("endpoint", facet{}, body.head); err != nil {
		return nil, err
	}
	if err := r.api.Control.MayRefer(r.caller, link.KindNetwork, w.network, control.Connect); err != nil {
		return nil, err
	}
	n := s.Network(w.network)
	if n == nil || r.api.showSubnet(n, w.subnet) == nil || cmp.Or(facetOf[facet](n.API).Location, defaultLocation) != w.Location {
		return nil, unreferenced(w.subnetID)
	}
	if w.Interface != "" && r.api.interfaceOwner(s, r.subscription(), r.path("group"), w.Interface) != nil {
		return nil, fail(http.StatusConflict, "NetworkInterfaceNameInUse", "The network interface name %s is in use.", quote(w.Interface))
	}
	e := link.Endpoint{ID: id, Network: w.network, Subnet: subnetName(n, w.subnet), Service: w.service, Address: w.address}
	if err := applyTags(r.api, endpointSettings, w.Tags, &e); err != nil {
		return nil, invalid("tags", "%v", err)
	}
	e.API, err = writeFacet(w.endpointFacet)
	return &control.Ask{Endpoint: e, Alias: w.alias, Manual: w.Manual, Message: w.Message}, err
}

// changedEndpoint is the change of an endpoint that is there: of its tags and the like, since where it
// stands never changes. Its connection stays as it is, also a Disconnected one.
func (r *request) changedEndpoint(s *link.Snapshot, old *link.Endpoint, body *privateEndpoint, w endpointWish) (*control.Ask, error) {
	had := facetOf[endpointFacet](old.API)
	var err error
	if w.facet, err = r.common("endpoint", had.facet, body.head); err != nil {
		return nil, err
	}
	changed := ""
	switch n := s.Network(old.Network); {
	case w.network != old.Network || subnetName(n, w.subnet) != old.Subnet:
		changed = "properties.subnet"
	case w.address.IsValid() && w.address != old.Address:
		changed = "properties.ipConfigurations"
	case had.Connection != "" && w.Manual != had.Manual:
		changed = "properties.manualPrivateLinkServiceConnections"
	case had.Interface != "" && w.Interface != "" && !strings.EqualFold(w.Interface, had.Interface):
		changed = "properties.customNetworkInterfaceName"
	}
	ask := &control.Ask{Endpoint: *old, Manual: w.Manual}
	if !strings.EqualFold(w.Service, had.Service) { // else the same one, which need not be there any more
		if ask.Alias = w.alias; w.alias == "" && w.service != old.Service {
			changed = "privateLinkServiceId"
		}
	} else {
		w.Service = had.Service
	}
	if changed != "" {
		return nil, fail(http.StatusBadRequest, "PropertyChangeNotAllowed", "%s of private endpoint %s can't be changed.", changed, quote(r.path("endpoint")))
	}
	w.Interface, w.ZoneNames = had.Interface, had.ZoneNames // the names that it got at first stay
	ask.Endpoint.Allow = nil
	if err := applyTags(r.api, endpointSettings, w.Tags, &ask.Endpoint); err != nil {
		return nil, invalid("tags", "%v", err)
	}
	ask.Endpoint.API, err = writeFacet(w.endpointFacet)
	return ask, err
}

func (r *request) deleteEndpoint() (reply, error) {
	id, err := r.id("endpoint")
	if err != nil {
		return reply{}, err
	}
	res, err := r.api.Control.EditEndpoint(r.Context(), r.op(), id, func(s *link.Snapshot, old *link.Endpoint) (*control.Ask, error) {
		if err := unchanged(r, old, r.endpointView(s)); err != nil || old == nil {
			return nil, err
		}
		return nil, r.writable(s, old.Origin)
	})
	if err != nil {
		return reply{}, err
	}
	if r.dry() {
		return r.planned(res)
	}
	return deleted(res), nil
}

// endpointID returns the ARM ID of an endpoint.
func (a *API) endpointID(e *link.Endpoint) string {
	return a.armID(typeEndpoint, e.ID, facetOf[facet](e.API))
}

// showEndpoint renders an endpoint.
func (a *API) showEndpoint(s *link.Snapshot, e *link.Endpoint) *privateEndpoint {
	f := facetOf[endpointFacet](e.API)
	v := &privateEndpoint{head: a.head(typeEndpoint, e.ID, f.facet)}
	p := &v.Properties
	p.ProvisioningState, p.ResourceGUID = succeeded, guidOf(e, e.Facet)
	if n := s.Network(e.Network); n != nil {
		p.Subnet.ID = a.subnetID(n, e.Subnet)
	}
	connection := a.showEndpointConnection(s, e, f, v)
	if f.Manual {
		p.Manual = array[endpointConnection]{connection}
	} else {
		p.Automatic = array[endpointConnection]{connection}
	}
	for _, c := range f.Addresses {
		c.Properties.Address = e.Address.String()
		p.IPConfigurations = append(p.IPConfigurations, c)
	}
	p.InterfaceName, p.IPVersion = f.Interface, versionOf(e.Address)
	p.Interfaces = array[subResource]{{a.endpointInterface(e).id()}}
	if service := s.Service(e.Service); service != nil && e.Connection.Live() {
		for _, n := range service.Names {
			p.DNS = append(p.DNS, dnsConfig{FQDN: string(n.Public), Addresses: []string{e.Address.String()}})
		}
	}
	return v
}

func (a *API) showEndpointConnection(s *link.Snapshot, e *link.Endpoint, f endpointFacet, v *privateEndpoint) endpointConnection {
	c := endpointConnection{part: part{Name: cmp.Or(f.Connection, v.Name), Type: typeEndpointConnection}}
	c.ID = fmt.Sprintf("%s/privateLinkServiceConnections/%s", v.ID, c.Name)
	if f.Manual {
		c.ID = fmt.Sprintf("%s/manualPrivateLinkServiceConnections/%s", v.ID, c.Name)
		c.Type = typeEndpoint + "/manualPrivateLinkServiceConnections"
	}
	p := &c.Properties
	p.ProvisioningState, p.Service, p.Message = succeeded, f.Service, f.Message
	switch service := s.Service(e.Service); {
	case service != nil && p.Service != "" && !strings.Contains(p.Service, "/") && e.Connection.State != link.Disconnected:
		// One that was made again under its ID has another alias than was asked for. A Disconnected connection
		// isn't with that one: the consumer need not even see it.
		p.Service = service.Alias
	case p.Service == "":
		var spelling facet
		if service != nil && service.Tenant == e.Tenant {
			spelling = facetOf[facet](service.API)
		}
		p.Service = a.armID(typeService, e.Service, spelling)
	}
	p.State = stateOf(&e.Connection)
	return c
}

// versionOf names the IP version of an address.
func versionOf(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}
