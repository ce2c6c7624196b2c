package armapi

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

// facets returns what gives the objects of a manifest the API's part: so that Azure's operations show them,
// and put them back, as what they are. group is that of the objects.
func (a *API) facets(group facet) func(o link.Object, in control.Named) json.RawMessage {
	return func(o link.Object, in control.Named) json.RawMessage {
		var v any
		base := func(f *facet) {
			if f.Name == "" {
				*f = facet{Name: in.Name, Group: group.Name, Location: group.Location, Tags: f.Tags}
			}
		}
		switch o := o.(type) {
		case *link.Network:
			f := facetOf[networkFacet](o.API)
			base(&f.facet)
			f.Tags = withSettings(f.Tags, map[string]string{"egress": strings.Join(o.Egress, " "), "sites": strings.Join(texts(o.Sites), " ")})
			v = f
		case *link.Service:
			f := facetOf[serviceFacet](o.API)
			base(&f.facet)
			f.take(o, in.Retargeted)
			v = f
		case *link.Endpoint:
			f := facetOf[endpointFacet](o.API)
			made := f.Name == ""
			base(&f.facet)
			if made {
				f.Service, f.Manual, f.Message = in.Alias, in.Manual, in.Message
			}
			f.Tags = withSettings(f.Tags, map[string]string{"allow": strings.Join(texts(o.Allow), " ")})
			v = f
		default:
			return nil
		}
		text, err := writeFacet(v)
		if err != nil {
			return nil // not reached: structs of strings
		}
		return text
	}
}

// take makes the facet say what the service is. Retargeted: its targets are no longer those of a load balancer.
func (f *serviceFacet) take(v *link.Service, retargeted bool) {
	f.Visible, f.AutoApprove, f.Proxy = shownParties(v.Visible), shownParties(v.AutoApprove), nil
	if retargeted {
		f.Balancer, f.Frontend = "", ""
	}
	pin, header := string(v.Pin), string(v.ProxyProtocol)
	if v.Pin == link.DefaultPin(v.Protocol, v.Port, len(v.Names)) {
		pin = "" // what it is without a word
	}
	if v.ProxyProtocol == link.ProxyOff || v.ProxyProtocol == link.ProxyAzure {
		header = "" // enableProxyProtocol says it
	}
	settings := map[string]string{
		"port": figure(int(v.Port), defaultPort), "pin": pin, "proxy-protocol": header,
		"max-connections": figure(v.MaxConnections, 0), "max-per-consumer": figure(v.MaxPerConsumer, 0), "targets": "",
		"reject": strings.Join(shownParties(v.Reject), " "), "idle-timeout": "", "strict": "", "ech": "", "fallback": "",
		"protocol": "", "balance": string(v.Balance), "weights": weightWords(v), "probe": "", "max-per-target": "", "warm": "",
		"within": strings.Join(texts(v.Within), " "), "sites": strings.Join(texts(v.Sites), " "),
	}
	if v.Protocol != link.TCP && f.Balancer == "" {
		settings["protocol"] = v.Protocol.String()
	}
	if v.Probe != (link.Probe{}) {
		settings["probe"] = v.Probe.String()
	}
	if v.MaxPerTarget != 0 {
		settings["max-per-target"] = strconv.Itoa(v.MaxPerTarget) + " " + strconv.Itoa(v.MaxWaiting)
	}
	if v.Warm != 0 {
		settings["warm"] = v.WarmWords()
	}
	if v.FallbackPublic {
		settings["fallback"] = "public"
	}
	if v.IdleTimeout != 0 {
		settings["idle-timeout"] = v.IdleTimeout.String()
	}
	if v.ECHOuter {
		settings["ech"] = "allow"
	}
	if v.Strict {
		settings["strict"] = "true"
	}
	if f.Balancer == "" && (len(v.TargetNames) > 0 || len(v.Targets) != 1 || v.Targets[0].Addr.Port() != v.Port) {
		settings["targets"] = strings.Join(v.TargetTexts(), " ") // more than destinationIPAddress says
	}
	f.Tags = withSettings(f.Tags, settings)
	f.connectFrom(v)
}

// weightWords writes the weights of the targets that don't weigh 1.
func weightWords(v *link.Service) string {
	var all []string
	for _, t := range v.Targets {
		if w := v.Weight(t.Addr); w != 1 {
			all = append(all, t.Addr.String()+"="+strconv.Itoa(w))
		}
	}
	for _, n := range v.TargetNames {
		if w := v.NameWeight(n); w != 1 {
			all = append(all, n.String()+"="+strconv.Itoa(w))
		}
	}
	return strings.Join(all, " ")
}

// connectFrom makes the facet say where the service connects from. One configuration there always is, of the node's
// own address where the service says nothing: without one it couldn't be put back.
func (f *serviceFacet) connectFrom(v *link.Service) {
	var now []netip.Addr
	for _, c := range f.IPConfigurations {
		if a, err := netip.ParseAddr(c.Address); err == nil {
			now = append(now, a)
		}
	}
	if slices.Equal(now, v.NAT) && len(f.IPConfigurations) > 0 {
		return
	}
	f.IPConfigurations = nil
	if len(v.NAT) == 0 {
		f.IPConfigurations = []serviceIPConfig{{Name: "nat1", Primary: true, Version: "IPv4"}}
	}
	for i, a := range v.NAT {
		f.IPConfigurations = append(f.IPConfigurations, serviceIPConfig{Name: "nat" + strconv.Itoa(i+1), Primary: i == 0, Version: versionOf(a), Address: a.String()})
	}
}

// figure writes a number, "" for the one that is meant where nothing is said.
func figure(n, unsaid int) string {
	if n == unsaid {
		return ""
	}
	return strconv.Itoa(n)
}

// withSettings returns tags with the settings, by name without the prefix, in place of those that they have; ""
// takes one out.
func withSettings(tags, settings map[string]string) map[string]string {
	out := maps.Clone(tags)
	maps.DeleteFunc(out, func(key, _ string) bool {
		name, ours := strings.CutPrefix(strings.ToLower(key), tagPrefix)
		_, known := settings[name]
		return ours && known
	})
	for name, value := range settings {
		if value == "" {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[tagPrefix+name] = value
	}
	return out
}
