package control

import (
	"fmt"
	"strings"

	"github.com/postern-link/postern/link"
)

// Export returns the objects of a resource group as a manifest that would make them, those that a manifest
// can hold.
func (c *Control) Export(caller Caller, subscription, group string) (Manifest, error) {
	s, err := c.View(caller, subscription)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Subscription: subscription, Group: group}
	in, err := link.ParseID(subscription + "/" + group)
	if err != nil {
		return m, err
	}
	prefix := string(in) + "/"
	for n := range s.Networks() {
		if strings.HasPrefix(string(n.ID), prefix) {
			m.Networks = append(m.Networks, exportNetwork(n))
		}
	}
	for v := range s.Services() {
		if strings.HasPrefix(string(v.ID), prefix) {
			m.Services = append(m.Services, exportService(v))
		}
	}
	for e := range s.Endpoints() {
		if strings.HasPrefix(string(e.ID), prefix) {
			m.Endpoints = append(m.Endpoints, c.exportEndpoint(s, caller, e, prefix))
		}
	}
	return m, nil
}

func exportNetwork(n *link.Network) ManifestNetwork {
	m := ManifestNetwork{Name: n.ID.Last(), Prefixes: texts(n.Prefixes), Egress: n.Egress, Sites: texts(n.Sites)}
	for _, s := range n.Subnets {
		if m.Subnets == nil {
			m.Subnets = map[string]string{}
		}
		m.Subnets[s.Name] = strings.Join(texts(s.Prefixes), " ")
	}
	return m
}

func exportService(v *link.Service) ManifestService {
	m := ManifestService{
		Name: v.ID.Last(), Port: v.Port, NAT: texts(v.NAT), Pin: string(v.Pin), ProxyProtocol: string(v.ProxyProtocol),
		MaxConnections: v.MaxConnections, MaxPerConsumer: v.MaxPerConsumer, Strict: v.Strict, ECHOuter: v.ECHOuter,
		FallbackPublic: v.FallbackPublic, Targets: v.TargetTexts(), Within: texts(v.Within), Sites: texts(v.Sites),
	}
	if v.Protocol != link.TCP {
		m.Protocol = v.Protocol.String()
	}
	m.exportSpread(v)
	for _, n := range v.Names {
		m.Names = append(m.Names, string(n.Public))
	}
	for i, list := range [][]link.Party{v.Visible, v.AutoApprove, v.Reject} {
		to := []*[]string{&m.Visible, &m.Approve, &m.Reject}[i]
		for _, p := range list {
			*to = append(*to, string(p))
		}
	}
	if v.IdleTimeout != 0 {
		m.IdleTimeout = v.IdleTimeout.String()
	}
	return m
}

// exportEndpoint names what is in the same group by its name. A service that the caller may not see by its ID is
// named by its alias, as it was asked for.
func (c *Control) exportEndpoint(s *link.Snapshot, caller Caller, e *link.Endpoint, prefix string) ManifestEndpoint {
	m := ManifestEndpoint{
		Name: e.ID.Last(), Network: strings.TrimPrefix(string(e.Network), prefix), Subnet: e.Subnet,
		Service: strings.TrimPrefix(string(e.Service), prefix), Address: e.Address.String(), Allow: texts(e.Allow), Message: e.Connection.Message,
	}
	if v := s.Service(e.Service); v != nil && !c.sees(caller, v.ID) {
		m.Service = v.Alias
	}
	return m
}

// texts returns what each of a list is written as, nil for none.
func texts[T fmt.Stringer](list []T) []string {
	var all []string
	for _, v := range list {
		all = append(all, v.String())
	}
	return all
}
