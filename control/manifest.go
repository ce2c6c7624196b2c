package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// Manifest is a set of objects that a subscription shall hold. Objects that it doesn't name are left alone,
// unless Prune says that those it once held and no longer names are deleted.
type Manifest struct {
	Subscription string `json:"subscription"`
	Group        string `json:"resourceGroup"`
	Prune        bool   `json:"prune,omitempty"`
	// Once says that this is one person's single command: its objects aren't remembered as those of manifests, which
	// Prune deletes. It goes without Prune.
	Once      bool               `json:"once,omitempty"`
	Networks  []ManifestNetwork  `json:"networks,omitempty"`
	Services  []ManifestService  `json:"services,omitempty"`
	Endpoints []ManifestEndpoint `json:"endpoints,omitempty"`
	// Facet returns the API's part of an object as the manifest makes it, which control doesn't read. The object
	// still has the one that it had. nil: that stays.
	Facet func(o link.Object, in Named) json.RawMessage `json:"-"`
}

// Named is what a manifest says of an object and the object itself doesn't keep.
type Named struct {
	Name       string // as it is spelt
	Retargeted bool   // of a service: it has other targets than before, or they are spoken to in another protocol
	Alias      string // of an endpoint: the alias that it asks for its service by, if it does
	Manual     bool   // of an endpoint: the provider decides
	Message    string // of an endpoint
}

// ManifestNetwork is a network of a manifest.
type ManifestNetwork struct {
	Name     string            `json:"name"`
	Prefixes []string          `json:"prefixes"`
	Subnets  map[string]string `json:"subnets,omitempty"` // name to prefix, or to several with spaces between
	Egress   []string          `json:"egress,omitempty"`
	Sites    []string          `json:"sites,omitempty"` // SITE=PREFIX: where its clients and endpoints are
}

// ManifestService is a service of a manifest. What it says nothing of is what linkservice has where it says nothing.
type ManifestService struct {
	Name     string   `json:"name"`
	Names    []string `json:"names,omitempty"`
	Port     uint16   `json:"port"`
	Protocol string   `json:"protocol,omitempty"` // "tcp", which is meant without a word, or "udp"
	// Targets are ADDRESS:PORT or NAME:PORT. A service keeps the addresses before the names.
	Targets []string `json:"targets"`
	// Within are the prefixes that the names among them may lead to; none: anything that the rules about targets let pass.
	Within []string `json:"within,omitempty"`
	// Sites are where targets are, each SITE=PREFIX.
	Sites []string `json:"sites,omitempty"`
	// Weights are those of targets that don't weigh 1, 0 to [link.MaxWeight]: with 0 a target gets no new flow.
	Weights map[string]int `json:"weights,omitempty"`
	Balance string         `json:"balance,omitempty"` // "round-robin", which is meant without a word, "least-connections" or "source-hash"
	Probe   string         `json:"probe,omitempty"`   // in the words of [link.ParseProbe]
	// MaxPerTarget bounds the flows that a node has with one target, 0 for no bound, and MaxWaiting those that wait for
	// a place; nil: as many as MaxPerTarget.
	MaxPerTarget int  `json:"maxPerTarget,omitempty"`
	MaxWaiting   *int `json:"maxWaiting,omitempty"`
	// Warm is how many connections a node has ready with each target, and WarmAge how long each is of use, such as "20s".
	Warm           int      `json:"warm,omitempty"`
	WarmAge        string   `json:"warmAge,omitempty"`
	Visible        []string `json:"visible,omitempty"`
	Approve        []string `json:"approve,omitempty"`
	Reject         []string `json:"reject,omitempty"`
	Pin            string   `json:"pin,omitempty"`
	ProxyProtocol  string   `json:"proxyProtocol,omitempty"`
	NAT            []string `json:"nat,omitempty"`
	MaxConnections int      `json:"maxConnections,omitempty"`
	MaxPerConsumer int      `json:"maxPerConsumer,omitempty"`
	IdleTimeout    string   `json:"idleTimeout,omitempty"`
	Strict         bool     `json:"strict,omitempty"`
	ECHOuter       bool     `json:"echOuter,omitempty"`
	FallbackPublic bool     `json:"fallbackPublic,omitempty"`
}

// ManifestEndpoint is an endpoint of a manifest.
type ManifestEndpoint struct {
	Name    string   `json:"name"`
	Network string   `json:"network"` // of the same group, or a whole ID
	Subnet  string   `json:"subnet"`
	Service string   `json:"service"` // of the same group, a whole ID, or an alias
	Address string   `json:"address,omitempty"`
	Allow   []string `json:"allow,omitempty"`
	Message string   `json:"message,omitempty"`
}

// maxManifest bounds the objects of a manifest: they are one commit.
const maxManifest = 1000

// desired is a manifest as the domain has it. Each function changes an object, one that was made for the
// purpose or one that is there, to what the manifest says.
type desired struct {
	networks  []wanted[link.Network]
	services  []wanted[link.Service]
	endpoints []wanted[ManifestEndpoint]
}

type wanted[T any] struct {
	id   link.ID
	name string // as the manifest has it
	edit func(*T)
	ask  T // of an endpoint
}

// parse reads a manifest. The error names the object that is wrong.
func (m *Manifest) parse() (d desired, err error) {
	if n := len(m.Networks) + len(m.Services) + len(m.Endpoints); n > maxManifest {
		return d, fmt.Errorf("%w: %d objects in a manifest, %d are allowed", link.ErrInvalid, n, maxManifest)
	}
	if m.Once && m.Prune {
		return d, fmt.Errorf("%w: once and prune exclude each other", link.ErrInvalid)
	}
	seen := map[string]bool{}
	id := func(kind link.Kind, name string) (link.ID, error) {
		id, err := m.id(name)
		if err == nil && seen[object(kind, id)] {
			err = fmt.Errorf("%w: it is there twice", link.ErrInvalid)
		}
		seen[object(kind, id)] = true
		if err != nil {
			return id, fmt.Errorf("%s %q: %w", kind, readable(name, 80), err)
		}
		return id, nil
	}
	for _, n := range m.Networks {
		w := wanted[link.Network]{name: n.Name}
		if w.id, err = id(link.KindNetwork, n.Name); err == nil {
			w.edit, err = n.edit()
		}
		if err != nil {
			return d, fmt.Errorf("network %q: %w", readable(n.Name, 80), err)
		}
		d.networks = append(d.networks, w)
	}
	for _, v := range m.Services {
		w := wanted[link.Service]{name: v.Name}
		if w.id, err = id(link.KindService, v.Name); err == nil {
			w.edit, err = v.edit()
		}
		if err != nil {
			return d, fmt.Errorf("service %q: %w", readable(v.Name, 80), err)
		}
		d.services = append(d.services, w)
	}
	for _, e := range m.Endpoints {
		w := wanted[ManifestEndpoint]{name: e.Name, ask: e}
		if w.id, err = id(link.KindEndpoint, e.Name); err == nil {
			_, err = e.endpoint(m)
		}
		if err != nil {
			return d, fmt.Errorf("endpoint %q: %w", readable(e.Name, 80), err)
		}
		d.endpoints = append(d.endpoints, w)
	}
	return d, nil
}

// id returns the ID of an object of the manifest's group.
func (m *Manifest) id(name string) (link.ID, error) {
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("%w: name %q", link.ErrInvalid, readable(name, 80))
	}
	return link.ParseID(m.Subscription + "/" + m.Group + "/" + name)
}

// refer returns the ID that a reference means: a name of the same group, or a whole ID.
func (m *Manifest) refer(to string) (link.ID, error) {
	if !strings.Contains(to, "/") {
		return m.id(to)
	}
	id, err := link.ParseID(to)
	if err == nil && id.Subscription() == "" {
		err = fmt.Errorf("%w: %q: a name, or SUBSCRIPTION/GROUP/NAME is expected", link.ErrInvalid, readable(to, 80))
	}
	return id, err
}

func (n *ManifestNetwork) edit() (func(*link.Network), error) {
	all, err := parseAll(n.Prefixes, prefix)
	if err != nil {
		return nil, err
	}
	var subnets []link.Subnet
	for name, text := range n.Subnets {
		s := link.Subnet{Name: strings.ToLower(name)}
		if s.Prefixes, err = parseAll(strings.Fields(text), prefix); err != nil {
			return nil, fmt.Errorf("subnet %q: %w", readable(name, 80), err)
		}
		subnets = append(subnets, s)
	}
	sites, err := parseAll(n.Sites, link.ParseSitePrefix)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(subnets, func(a, b link.Subnet) int { return strings.Compare(a.Name, b.Name) })
	return func(o *link.Network) {
		o.Prefixes, o.Egress, o.Sites = all, n.Egress, sites
		o.Subnets = sameSubnets(o.Subnets, subnets)
	}, nil
}

// sameSubnets returns the subnets that there are where they are the same ones in another order, so that
// nothing changes.
func sameSubnets(old, now []link.Subnet) []link.Subnet {
	sorted := slices.SortedFunc(slices.Values(old), func(a, b link.Subnet) int { return strings.Compare(a.Name, b.Name) })
	same := func(a, b link.Subnet) bool { return a.Name == b.Name && slices.Equal(a.Prefixes, b.Prefixes) }
	if slices.EqualFunc(sorted, now, same) {
		return old
	}
	return now
}

func (v *ManifestService) edit() (func(*link.Service), error) {
	names, err := parseAll(v.Names, link.ParsePattern)
	if err != nil {
		return nil, err
	}
	targets, err := parseAll(v.Targets, target)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	protocol, err := v.protocol()
	if err != nil {
		return nil, err
	}
	within, err := parseAll(v.Within, prefix)
	if err != nil {
		return nil, fmt.Errorf("within: %w", err)
	}
	sites, err := parseAll(v.Sites, link.ParseSitePrefix)
	if err != nil {
		return nil, err
	}
	spread, err := v.spread(targets)
	if err != nil {
		return nil, err
	}
	nat, err := parseAll(v.NAT, addr)
	if err != nil {
		return nil, fmt.Errorf("NAT address: %w", err)
	}
	var lists [3][]link.Party
	for i, list := range [][]string{v.Visible, v.Approve, v.Reject} {
		if lists[i], err = parseAll(list, link.ParseParty); err != nil {
			return nil, err
		}
	}
	idle := time.Duration(0)
	if v.IdleTimeout != "" {
		if idle, err = time.ParseDuration(v.IdleTimeout); err != nil {
			return nil, fmt.Errorf("%w: idle timeout %q", link.ErrInvalid, readable(v.IdleTimeout, 80))
		}
	}
	pin, header := link.Pin(v.Pin), link.ProxyProtocol(v.ProxyProtocol)
	if header == "" {
		header = link.ProxyOff
	}
	if pin == "" {
		pin = link.DefaultPin(protocol, v.Port, len(names))
	}
	return func(o *link.Service) {
		o.Names, o.Within, o.Sites = nil, within, sites
		o.Targets, o.TargetNames = parted(targets)
		for _, n := range names {
			o.Names = append(o.Names, link.ResourceName{Public: n})
		}
		o.Port, o.Visible, o.AutoApprove, o.Reject = v.Port, lists[0], lists[1], lists[2]
		o.Pin, o.ProxyProtocol, o.NAT, o.IdleTimeout, o.Strict = pin, header, nat, idle, v.Strict
		o.MaxConnections, o.MaxPerConsumer, o.ECHOuter = v.MaxConnections, v.MaxPerConsumer, v.ECHOuter
		o.Protocol, o.Spread, o.FallbackPublic = protocol, spread, v.FallbackPublic
	}, nil
}

// aliasSuffix is what tells an alias from a name.
const aliasSuffix = ".azure.privatelinkservice"

// endpoint returns what an endpoint of a manifest asks for.
func (e *ManifestEndpoint) endpoint(m *Manifest) (ask Ask, err error) {
	if ask.Endpoint.Network, err = m.refer(e.Network); err != nil {
		return ask, fmt.Errorf("network: %w", err)
	}
	if strings.HasSuffix(strings.ToLower(e.Service), aliasSuffix) {
		ask.Alias = e.Service
	} else if ask.Endpoint.Service, err = m.refer(e.Service); err != nil {
		return ask, fmt.Errorf("service: %w", err)
	}
	if e.Address != "" {
		if ask.Endpoint.Address, err = addr(e.Address); err != nil {
			return ask, fmt.Errorf("%w: %w", link.ErrInvalid, err)
		}
	}
	ask.Endpoint.Subnet, ask.Message = strings.ToLower(e.Subnet), e.Message
	ask.Endpoint.Allow, err = parseAll(e.Allow, prefix)
	return ask, err
}

// parseAll parses each of a list, nil for none.
func parseAll[T any](list []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, s := range list {
		v, err := parse(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", link.ErrInvalid, err)
		}
		all = append(all, v)
	}
	return all, nil
}

var (
	prefix = inWords(netip.ParsePrefix, "a prefix such as 10.1.0.0/16")
	addr   = inWords(netip.ParseAddr, "an address such as 10.1.0.4")
	target = inWords(parseAim, "ADDRESS:PORT such as 10.1.0.4:443, or NAME:PORT such as db.contoso.example:443")
)

// inWords makes the errors of a parser say what is expected, and not which function of ours has found it wrong.
func inWords[T any](parse func(string) (T, error), expected string) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := parse(s)
		if err != nil {
			err = fmt.Errorf("%q isn't %s", readable(s, 80), expected)
		}
		return v, err
	}
}
