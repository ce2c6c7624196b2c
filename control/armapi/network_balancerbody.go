package armapi

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
)

// balancerFacet is a load balancer: the domain knows nothing of it. IDs, types and tags of its parts are
// filled in when it is shown; a rule names its frontend, pool and probe alone.
type balancerFacet struct {
	facet
	SKU        *balancerSKU       `json:"sku,omitempty"`
	Properties balancerProperties `json:"properties"`
}

// Bounds of a load balancer.
const (
	maxFrontends = 600
	maxRules     = 250
	maxBackends  = 1000 // in a pool
)

// wantedBalancer reads the body of a PUT, but for what all types have in common.
func (r *request) wantedBalancer(id link.ID, body *loadBalancer) (balancerFacet, error) {
	f := balancerFacet{SKU: body.SKU, Properties: body.Properties}
	p := &f.Properties
	p.ProvisioningState, p.ResourceGUID = "", ""
	p.NatRules, p.NatPools, p.OutboundRules = nil, nil, nil
	if len(p.Frontends) > maxFrontends || len(p.Pools) > maxFrontends || len(p.Rules) > maxRules || len(p.Probes) > maxRules {
		return f, invalid("properties", "at most %d frontends and pools, and %d rules and probes are allowed", maxFrontends, maxRules)
	}
	for _, err := range []error{
		checkParts("properties.frontendIPConfigurations", p.Frontends, func(v *balancerFrontend) *part {
			v.Properties.ProvisioningState, v.Properties.Rules, v.Etag = "", nil, ""
			return &v.part
		}),
		checkParts("properties.backendAddressPools", p.Pools, func(v *balancerPool) *part {
			v.Properties.ProvisioningState, v.Properties.Rules, v.Etag = "", nil, ""
			return &v.part
		}),
		checkParts("properties.loadBalancingRules", p.Rules, func(v *balancerRule) *part {
			v.Properties.ProvisioningState, v.Etag = "", ""
			return &v.part
		}),
		checkParts("properties.probes", p.Probes, func(v *balancerProbe) *part {
			v.Properties.ProvisioningState, v.Properties.Rules, v.Etag = "", nil, ""
			return &v.part
		}),
	} {
		if err != nil {
			return f, err
		}
	}
	for i := range p.Pools {
		if err := checkBackends(&p.Pools[i]); err != nil {
			return f, err
		}
	}
	for i := range p.Rules {
		if err := r.checkRule(id, p, &p.Rules[i]); err != nil {
			return f, err
		}
	}
	return f, nil
}

// checkParts checks the names of the parts of one kind, and takes off what isn't kept.
func checkParts[T any](field string, all []T, strip func(*T) *part) error {
	seen := map[string]bool{}
	for i := range all {
		p := strip(&all[i])
		if err := checkName("name in "+field, p.Name); err != nil {
			return err
		}
		if seen[strings.ToLower(p.Name)] {
			return invalid(field, "%s is given twice", quote(p.Name))
		}
		seen[strings.ToLower(p.Name)] = true
		p.ID, p.Type = "", ""
	}
	return nil
}

// checkBackends checks the addresses of a pool.
func checkBackends(pool *balancerPool) error {
	const field = "properties.backendAddressPools.loadBalancerBackendAddresses"
	if len(pool.Properties.Addresses) > maxBackends {
		return invalid(field, "%d are too many, %d are allowed", len(pool.Properties.Addresses), maxBackends)
	}
	for i := range pool.Properties.Addresses {
		b := &pool.Properties.Addresses[i]
		a, err := parseAddress(b.Properties.Address)
		if err != nil {
			return invalid(field, "%v", err)
		}
		if b.Properties.Address = ""; a.IsValid() {
			b.Properties.Address = a.String()
		}
	}
	return nil
}

// checkRule checks a rule and makes its references names of parts of this load balancer.
func (r *request) checkRule(id link.ID, p *balancerProperties, rule *balancerRule) error {
	const field = "properties.loadBalancingRules"
	q := &rule.Properties
	if err := oneOf(strings.ToLower(q.Protocol), "tcp", "udp", "all"); err != nil {
		return invalid(field+".protocol", "%v", err)
	}
	q.Protocol = strings.ToUpper(q.Protocol[:1]) + strings.ToLower(q.Protocol[1:])
	for _, port := range []int{q.FrontendPort, q.BackendPort} {
		if port < 0 || port > 65535 || port == 0 && q.Protocol == "Tcp" {
			return invalid(field, "rule %s: %d isn't a port", quote(rule.Name), port)
		}
	}
	if q.Pool == nil && len(q.Pools) > 0 {
		q.Pool = &q.Pools[0]
	}
	q.Pools = nil
	for _, ref := range []struct {
		at    *subResource
		typ   string
		known func(name string) bool
	}{
		{q.Frontend, typeFrontend, func(n string) bool {
			return slices.ContainsFunc(p.Frontends, func(f balancerFrontend) bool { return f.Name == n })
		}},
		{q.Pool, typePool, func(n string) bool {
			return slices.ContainsFunc(p.Pools, func(f balancerPool) bool { return f.Name == n })
		}},
		{q.Probe, typeProbe, func(n string) bool {
			return slices.ContainsFunc(p.Probes, func(f balancerProbe) bool { return f.Name == n })
		}},
	} {
		if ref.at == nil || ref.at.ID == "" {
			continue
		}
		found, err := r.api.reference(field, ref.at.ID, ref.typ)
		if err != nil {
			return err
		}
		if found.ID != id {
			return unreferenced(ref.at.ID)
		}
		if ref.at.ID = ownName(p, ref.typ, found.Child); ref.at.ID == "" || !ref.known(ref.at.ID) {
			return unreferenced(found.Child)
		}
	}
	if q.Frontend == nil || q.Frontend.ID == "" {
		return invalid(field+".frontendIPConfiguration", "rule %s has none", quote(rule.Name))
	}
	return nil
}

// ownName returns the name of a part in its own spelling, "" where there is none.
func ownName(p *balancerProperties, typ, name string) string {
	var names []string
	switch typ {
	case typeFrontend:
		for _, f := range p.Frontends {
			names = append(names, f.Name)
		}
	case typePool:
		for _, f := range p.Pools {
			names = append(names, f.Name)
		}
	case typeProbe:
		for _, f := range p.Probes {
			names = append(names, f.Name)
		}
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return ""
	}
	return names[i]
}

// retarget sets port, protocol and targets of a service from the frontend of a load balancer, which has exactly one
// rule: a service has one port of one protocol.
func (r *request) retarget(v *link.Service, f *serviceFacet, p balancerProperties) error {
	if ownName(&p, typeFrontend, f.Frontend) == "" {
		return unreferenced(f.Frontend)
	}
	var rules []balancerRule
	for _, rule := range p.Rules {
		if strings.EqualFold(rule.Properties.Frontend.ID, f.Frontend) {
			rules = append(rules, rule)
		}
	}
	protocols := map[string]link.Protocol{"Tcp": link.TCP, "Udp": link.UDP}
	if len(rules) != 1 {
		return fail(http.StatusBadRequest, "InvalidRequestFormat", "Frontend %s has %d rules; that of a private link service has exactly one, of protocol Tcp or Udp.", quote(f.Frontend), len(rules))
	}
	rule := rules[0].Properties
	protocol, ok := protocols[rule.Protocol]
	if !ok || rule.FrontendPort == 0 || rule.BackendPort == 0 {
		return fail(http.StatusBadRequest, "InvalidRequestFormat", "The rule of frontend %s is of protocol %s, ports %d and %d; that of a private link service is of Tcp or Udp, with ports of 1 to 65535.",
			quote(f.Frontend), rule.Protocol, rule.FrontendPort, rule.BackendPort)
	}
	v.Port, v.Protocol, v.Targets = uint16(rule.FrontendPort), protocol, nil
	for _, pool := range p.Pools {
		if rule.Pool == nil || !strings.EqualFold(pool.Name, rule.Pool.ID) {
			continue
		}
		for _, b := range pool.Properties.Addresses {
			a, err := netip.ParseAddr(b.Properties.Address)
			target := link.Target{Addr: netip.AddrPortFrom(a, uint16(rule.BackendPort))}
			if err == nil && !strings.EqualFold(b.Properties.AdminState, "Down") && !slices.Contains(v.Targets, target) {
				v.Targets = append(v.Targets, target)
			}
		}
	}
	return nil
}

// showBalancer renders a load balancer.
func (a *API) showBalancer(d *link.Document) *loadBalancer {
	f := facetOf[balancerFacet](d.API)
	v := &loadBalancer{head: a.head(typeLoadBalancer, d.ID, f.facet), SKU: f.SKU, Properties: f.Properties}
	p := &v.Properties
	p.ProvisioningState, p.ResourceGUID = succeeded, guidOf(d, d.Facet)
	id := func(typ, name string) string { return v.ID + "/" + typ[len(typeLoadBalancer)+1:] + "/" + name }
	uses := map[string][]subResource{} // by ID of a part: the rules with it
	for i := range p.Rules {
		rule := &p.Rules[i]
		rule.ID, rule.Type, rule.Properties.ProvisioningState = id(typeRule, rule.Name), typeRule, succeeded
		q := &rule.Properties
		for _, ref := range []struct {
			at  **subResource
			typ string
		}{{&q.Frontend, typeFrontend}, {&q.Pool, typePool}, {&q.Probe, typeProbe}} {
			if *ref.at == nil || (*ref.at).ID == "" {
				*ref.at = nil
				continue
			}
			whole := id(ref.typ, (*ref.at).ID)
			*ref.at, uses[whole] = &subResource{whole}, append(uses[whole], subResource{rule.ID})
		}
		if q.Pool != nil {
			q.Pools = []subResource{*q.Pool}
		}
	}
	for i := range p.Frontends {
		part := &p.Frontends[i]
		part.ID, part.Type, part.Properties.ProvisioningState = id(typeFrontend, part.Name), typeFrontend, succeeded
		part.Properties.Rules, part.Properties.Method = uses[part.ID], cmp.Or(part.Properties.Method, dynamic)
	}
	for i := range p.Pools {
		part := &p.Pools[i]
		part.ID, part.Type, part.Properties.ProvisioningState, part.Properties.Rules = id(typePool, part.Name), typePool, succeeded, uses[id(typePool, part.Name)]
	}
	for i := range p.Probes {
		part := &p.Probes[i]
		part.ID, part.Type, part.Properties.ProvisioningState, part.Properties.Rules = id(typeProbe, part.Name), typeProbe, succeeded, uses[id(typeProbe, part.Name)]
	}
	return v
}

// frontendID returns the ARM ID of a frontend, in its own spelling while it is there.
func (a *API) frontendID(s *link.Snapshot, balancer link.ID, frontend string) string {
	var f balancerFacet
	if d := s.Document(documentBalancer, balancer); d != nil {
		f = facetOf[balancerFacet](d.API)
		frontend = cmp.Or(ownName(&f.Properties, typeFrontend, frontend), frontend)
	}
	return a.armID(typeLoadBalancer, balancer, f.facet) + "/frontendIPConfigurations/" + frontend
}
