package armapi

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// serviceFacet is what the API keeps of a service beside what the domain does.
type serviceFacet struct {
	facet
	// Balancer and Frontend, in lower case, are where the targets come from; "" is a destination address.
	Balancer         link.ID           `json:"balancer,omitempty"`
	Frontend         string            `json:"frontend,omitempty"`
	Visible          []string          `json:"visible,omitempty"` // as written, and so AutoApprove
	AutoApprove      []string          `json:"autoApprove,omitempty"`
	IPConfigurations []serviceIPConfig `json:"ipConfigurations,omitempty"`
	AccessMode       string            `json:"accessMode,omitempty"`
	// Proxy is enableProxyProtocol as written: a tag may say more exactly which header it is, or ask for one
	// where this doesn't. nil: nobody wrote it.
	Proxy *bool `json:"proxy,omitempty"`
}

// serviceIPConfig is one address that a service connects from.
type serviceIPConfig struct {
	Name    string  `json:"name"`
	Primary bool    `json:"primary,omitempty"`
	Version string  `json:"version"`
	Address string  `json:"address,omitempty"` // "" is the node's own
	Network link.ID `json:"network,omitempty"`
	Subnet  string  `json:"subnet,omitempty"`
}

const (
	static        = "Static"
	dynamic       = "Dynamic"
	accessDefault = "Default"
)

// writtenService returns the service that a PUT asks for. Its alias and its connections are not the
// body's to change.
func (r *request) writtenService(s *link.Snapshot, id link.ID, old *link.Service, body *privateLinkService) (*link.Service, error) {
	v := link.Service{ID: id}
	var had facet
	if old != nil {
		v, had = *old, facetOf[facet](old.API)
	}
	common, err := r.common("service", had, body.head)
	if err != nil {
		return nil, err
	}
	f, p := serviceFacet{facet: common}, &body.Properties
	f.Proxy = &p.Proxy
	v.Names = nil
	for _, text := range p.FQDNs {
		name, err := link.ParsePattern(text)
		if err != nil {
			return nil, invalid("properties.fqdns", "%v", err)
		}
		v.Names = append(v.Names, link.ResourceName{Public: name})
	}
	if err := r.setLists(&v, &f, p.Visibility.Subscriptions, p.AutoApproval.Subscriptions); err != nil {
		return nil, err
	}
	if err := r.setAddresses(s, &v, &f, p.IPConfigurations); err != nil {
		return nil, err
	}
	if f.AccessMode, err = policies(p.AccessMode, accessDefault, accessDefault, "Restricted"); err != nil {
		return nil, invalid("properties.accessMode", "%v", err)
	}
	if err := r.setSettings(&v, common.Tags, p.Proxy); err != nil {
		return nil, err
	}
	if err := r.aim(s, &v, &f, body); err != nil {
		return nil, err
	}
	v.Pin = cmp.Or(v.Pin, link.DefaultPin(v.Protocol, v.Port, len(v.Names))) // once the port is known
	v.API, err = writeFacet(f)
	return &v, err
}

// setSettings sets what travels in tags, and what has a default that depends on other fields.
func (r *request) setSettings(v *link.Service, tags map[string]string, proxy bool) error {
	v.Port, v.Pin, v.ProxyProtocol, v.Reject, v.IdleTimeout, v.Strict = 0, "", "", nil, 0, false
	v.Targets, v.TargetNames, v.Within, v.Sites = nil, nil, nil, nil
	v.MaxConnections, v.MaxPerConsumer, v.ECHOuter = 0, 0, false
	v.Protocol, v.Spread, v.FallbackPublic = link.TCP, link.Spread{}, false
	if err := applyTags(r.api, serviceSettings, tags, v); err != nil {
		return invalid("tags", "%v", err)
	}
	switch {
	case v.ProxyProtocol == "" && proxy:
		v.ProxyProtocol = link.ProxyAzure
	case v.ProxyProtocol == "":
		v.ProxyProtocol = link.ProxyOff
	case v.ProxyProtocol == link.ProxyOff && proxy:
		return invalid("properties.enableProxyProtocol", "the tag %sproxy-protocol says otherwise", tagPrefix)
	}
	return nil
}

// setLists sets who may ask and who needs no decision. The subscription of the service may ask in any case.
func (r *request) setLists(v *link.Service, f *serviceFacet, visible, approve []string) error {
	lists := []struct {
		field  string
		given  []string
		domain *[]link.Party
		kept   *[]string
	}{
		{"properties.visibility.subscriptions", visible, &v.Visible, &f.Visible},
		{"properties.autoApproval.subscriptions", approve, &v.AutoApprove, &f.AutoApprove},
	}
	for _, l := range lists {
		*l.domain = nil
		for _, text := range l.given {
			p, err := r.api.parseParty(text)
			if err != nil {
				return invalid(l.field, "%v", err)
			}
			if !slices.Contains(*l.domain, p) {
				*l.domain, *l.kept = append(*l.domain, p), append(*l.kept, text)
			}
		}
	}
	own := link.Party("subscription/" + r.subscription())
	if slices.Contains(v.AutoApprove, own) && !slices.Contains(v.Visible, own) && !slices.Contains(v.Visible, link.Anyone) {
		v.Visible = append(v.Visible, own)
	}
	return nil
}

// setAddresses sets where the service connects from.
func (r *request) setAddresses(s *link.Snapshot, v *link.Service, f *serviceFacet, list []ipConfiguration) error {
	const field = "properties.ipConfigurations"
	if n := len(list); n == 0 || n > link.MaxNAT {
		return invalid(field, "%d are given, 1 to %d are allowed", n, link.MaxNAT)
	}
	v.NAT = nil
	primary := slices.IndexFunc(list, func(c ipConfiguration) bool { return c.Properties.Primary })
	for i, c := range list {
		if err := checkName("IP configuration name", c.Name); err != nil {
			return err
		}
		own := serviceIPConfig{Name: c.Name, Primary: i == max(primary, 0)}
		if slices.ContainsFunc(f.IPConfigurations, func(o serviceIPConfig) bool { return strings.EqualFold(o.Name, c.Name) }) {
			return invalid(field, "%s is given twice", quote(c.Name))
		}
		addr, err := wantedAddress(&c)
		if err != nil {
			return invalid(field, "%s: %v", quote(c.Name), err)
		}
		own.Version = cmp.Or(c.Properties.Version, "IPv4")
		if addr.IsValid() {
			own.Address, own.Version = addr.String(), versionOf(addr)
			v.NAT = append(v.NAT, addr)
		}
		if c.Properties.Subnet != nil && c.Properties.Subnet.ID != "" {
			if err := r.inSubnet(s, v.ID, &own, c.Properties.Subnet.ID, addr); err != nil {
				return err
			}
		}
		f.IPConfigurations = append(f.IPConfigurations, own)
	}
	return nil
}

// wantedAddress returns the address of a configuration, the zero one where it is dynamic.
func wantedAddress(c *ipConfiguration) (netip.Addr, error) {
	if err := oneOf(c.Properties.Version, "", "IPv4", "IPv6"); err != nil {
		return netip.Addr{}, err
	}
	switch {
	case strings.EqualFold(c.Properties.Method, static):
		a, err := parseAddress(c.Properties.Address)
		if err == nil && !a.IsValid() {
			err = fmt.Errorf("a static configuration needs a privateIPAddress")
		}
		return a, err
	case c.Properties.Method == "", strings.EqualFold(c.Properties.Method, dynamic):
		return netip.Addr{}, nil
	}
	return netip.Addr{}, oneOf(c.Properties.Method, static, dynamic)
}

// inSubnet judges the subnet of a configuration. Its network may be in another subscription, in which the
// caller needs the right to use it.
func (r *request) inSubnet(s *link.Snapshot, service link.ID, own *serviceIPConfig, armID string, addr netip.Addr) error {
	ref, err := r.api.reference("properties.ipConfigurations.subnet.id", armID, typeSubnet)
	if err != nil {
		return err
	}
	if r.api.Control.SubscriptionOf(ref.ID) != r.subscription() {
		if err := r.api.Control.MayRefer(r.caller, link.KindNetwork, ref.ID, control.Connect); err != nil {
			return err
		}
	}
	n := s.Network(ref.ID)
	if n == nil {
		return unreferenced(armID)
	}
	sub := r.api.showSubnet(n, ref.Child)
	if sub == nil {
		return unreferenced(armID)
	}
	if sub.Properties.ServicePolicies != disabled {
		return fail(http.StatusBadRequest, "PrivateLinkServiceCannotBeCreatedInSubnetThatHasNetworkPoliciesEnabled",
			"Private link service cannot be created in a subnet %s since it has private link service network policies enabled.", sub.ID)
	}
	own.Network, own.Subnet = n.ID, subnetName(n, ref.Child)
	if !addr.IsValid() {
		return nil
	}
	if err := n.CheckAddress(own.Subnet, addr); err != nil {
		return addressProblem(err)
	}
	return r.mayHaveAddress(s, service, n, sub, addr)
}

// mayHaveAddress returns an error if an address of a subnet that a service is to connect from is in use.
func (r *request) mayHaveAddress(s *link.Snapshot, service link.ID, n *link.Network, sub *subnet, addr netip.Addr) error {
	taken := false
	if e := s.EndpointAt(addr); e != nil && e.Network == n.ID {
		taken = true
	}
	for v := range s.Services() {
		if v.ID != service && slices.Contains(v.NAT, addr) && bytes.Contains(v.API, []byte(n.ID)) {
			taken = true
		}
	}
	if taken {
		return fail(http.StatusBadRequest, "PrivateIPAddressIsAllocated", "IP address %s is already allocated in subnet %s.", addr, sub.ID)
	}
	return nil
}

// aim sets port and targets of a service: of one address, of several targets that its tag says, or of the frontend of a
// load balancer. Where the tag has names alone there is no address to say.
func (r *request) aim(s *link.Snapshot, v *link.Service, f *serviceFacet, body *privateLinkService) error {
	p := &body.Properties
	dest, err := parseAddress(p.Destination)
	if err != nil {
		return invalid("properties.destinationIPAddress", "%v", err)
	}
	named := len(v.Targets) == 0 && len(v.TargetNames) > 0
	switch {
	case named && !dest.IsValid() && len(p.Frontends) == 0:
		v.Port = cmp.Or(v.Port, defaultPort)
		return nil
	case named && dest.IsValid():
		return invalid("properties.destinationIPAddress", "it is %s, and tag %stargets has names alone; leave one out, or write the address in the tag", dest, tagPrefix)
	case len(p.Frontends) > 1 || (len(p.Frontends) == 1) == dest.IsValid():
		return invalid("properties", "exactly one is expected: a frontend in loadBalancerFrontendIpConfigurations, destinationIPAddress, or names alone in tag %stargets", tagPrefix)
	case dest.IsValid():
		v.Port = cmp.Or(v.Port, defaultPort)
		switch {
		case len(v.Targets) == 0:
			v.Targets = []link.Target{{Addr: netip.AddrPortFrom(dest, v.Port)}}
		case v.Targets[0].Addr.Addr() != dest:
			return invalid("properties.destinationIPAddress", "it is %s, and the first address of tag %stargets %s", dest, tagPrefix, v.Targets[0].Addr)
		}
		return nil
	}
	if len(v.Targets)+len(v.TargetNames) > 0 {
		return invalid("tags", "tag %stargets goes with destinationIPAddress, not with a load balancer, which has targets of its own", tagPrefix)
	}
	ref, err := r.api.reference("properties.loadBalancerFrontendIpConfigurations.id", p.Frontends[0].ID, typeFrontend)
	if err != nil {
		return err
	}
	if r.api.Control.SubscriptionOf(ref.ID) != r.subscription() {
		if err := r.api.Control.MayRefer(r.caller, link.KindDocument, ref.ID, control.Publish); err != nil {
			return err
		}
	}
	f.Balancer, f.Frontend = ref.ID, strings.ToLower(ref.Child)
	doc := s.Document(documentBalancer, ref.ID)
	if doc == nil {
		return unreferenced(p.Frontends[0].ID)
	}
	port, protocol := v.Port, v.Protocol
	if err := r.retarget(v, f, facetOf[balancerFacet](doc.API).Properties); err != nil {
		return err
	}
	if protocol != link.TCP && protocol != v.Protocol {
		return invalid("tags", "tag %sprotocol says %s, the rule of the frontend %s", tagPrefix, protocol, v.Protocol)
	}
	if port != 0 && port != v.Port {
		return invalid("tags", "tag %sport says %d, the rule of the frontend %d", tagPrefix, port, v.Port)
	}
	return nil
}
