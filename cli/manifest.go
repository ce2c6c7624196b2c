package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// manifest is a set of objects that a resource group shall hold, as "plan" and "apply" send it. Its fields
// are those of docs/api.md.
type manifest struct {
	Subscription string             `json:"subscription" yaml:"subscription,omitempty"`
	Group        string             `json:"resourceGroup" yaml:"resourceGroup,omitempty"`
	Prune        bool               `json:"prune,omitempty" yaml:"prune,omitempty"`
	Once         bool               `json:"once,omitempty" yaml:"-"` // of a single command: not what a file has made
	Networks     []manifestNetwork  `json:"networks,omitempty" yaml:"networks,omitempty"`
	Services     []manifestService  `json:"services,omitempty" yaml:"services,omitempty"`
	Endpoints    []manifestEndpoint `json:"endpoints,omitempty" yaml:"endpoints,omitempty"`
}

type manifestNetwork struct {
	Name     string            `json:"name" yaml:"name"`
	Prefixes []string          `json:"prefixes" yaml:"prefixes"`
	Subnets  map[string]string `json:"subnets,omitempty" yaml:"subnets,omitempty"`
	Egress   []string          `json:"egress,omitempty" yaml:"egress,omitempty"`
	Sites    []string          `json:"sites,omitempty" yaml:"sites,omitempty"`
}

type manifestService struct {
	Name           string         `json:"name" yaml:"name"`
	Names          []string       `json:"names,omitempty" yaml:"names,omitempty"`
	Port           uint16         `json:"port" yaml:"port"`
	Protocol       string         `json:"protocol,omitempty" yaml:"protocol,omitempty"`
	Targets        []string       `json:"targets" yaml:"targets"`
	Within         []string       `json:"within,omitempty" yaml:"within,omitempty"`
	Sites          []string       `json:"sites,omitempty" yaml:"sites,omitempty"`
	Weights        map[string]int `json:"weights,omitempty" yaml:"weights,omitempty"`
	Balance        string         `json:"balance,omitempty" yaml:"balance,omitempty"`
	Probe          string         `json:"probe,omitempty" yaml:"probe,omitempty"`
	MaxPerTarget   int            `json:"maxPerTarget,omitempty" yaml:"maxPerTarget,omitempty"`
	MaxWaiting     *int           `json:"maxWaiting,omitempty" yaml:"maxWaiting,omitempty"`
	Warm           int            `json:"warm,omitempty" yaml:"warm,omitempty"`
	WarmAge        string         `json:"warmAge,omitempty" yaml:"warmAge,omitempty"`
	Visible        []string       `json:"visible,omitempty" yaml:"visible,omitempty"`
	Approve        []string       `json:"approve,omitempty" yaml:"approve,omitempty"`
	Reject         []string       `json:"reject,omitempty" yaml:"reject,omitempty"`
	Pin            string         `json:"pin,omitempty" yaml:"pin,omitempty"`
	ProxyProtocol  string         `json:"proxyProtocol,omitempty" yaml:"proxyProtocol,omitempty"`
	NAT            []string       `json:"nat,omitempty" yaml:"nat,omitempty"`
	MaxConnections int            `json:"maxConnections,omitempty" yaml:"maxConnections,omitempty"`
	MaxPerConsumer int            `json:"maxPerConsumer,omitempty" yaml:"maxPerConsumer,omitempty"`
	IdleTimeout    string         `json:"idleTimeout,omitempty" yaml:"idleTimeout,omitempty"`
	Strict         bool           `json:"strict,omitempty" yaml:"strict,omitempty"`
	ECHOuter       bool           `json:"echOuter,omitempty" yaml:"echOuter,omitempty"`
	FallbackPublic bool           `json:"fallbackPublic,omitempty" yaml:"fallbackPublic,omitempty"`
}

type manifestEndpoint struct {
	Name    string   `json:"name" yaml:"name"`
	Network string   `json:"network" yaml:"network"`
	Subnet  string   `json:"subnet" yaml:"subnet"`
	Service string   `json:"service" yaml:"service"`
	Address string   `json:"address,omitempty" yaml:"address,omitempty"`
	Allow   []string `json:"allow,omitempty" yaml:"allow,omitempty"`
	Message string   `json:"message,omitempty" yaml:"message,omitempty"`
}

// maxDocuments bounds the documents of a file.
const maxDocuments = 1000

// parseManifests reads the YAML documents of a file: fields that don't exist are errors, and so are
// aliases, with which a small file can be huge. Documents of the same subscription and group are one
// manifest, in the order of the first. Where a document doesn't say, the group is the one given.
func parseManifests(text []byte, subscription, group string) ([]manifest, error) {
	var all []manifest
	at := map[[2]string]int{}
	nodes, strict := yaml.NewDecoder(bytes.NewReader(text)), yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	for n := 0; ; n++ {
		var node yaml.Node
		err := nodes.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = bounded(&node)
		}
		var m manifest
		if err == nil {
			if err = strict.Decode(&m); errors.Is(err, io.EOF) {
				err = nil // a document without a value
			}
		}
		if err == nil && n == maxDocuments {
			err = fmt.Errorf("more than %d documents", maxDocuments)
		}
		if err != nil {
			return nil, err
		}
		if m.Subscription == "" {
			m.Subscription = subscription
		}
		if m.Group == "" {
			m.Group = group
		}
		key := [2]string{strings.ToLower(m.Subscription), strings.ToLower(m.Group)}
		if i, ok := at[key]; ok {
			all[i] = all[i].join(m)
			continue
		}
		at[key] = len(all)
		all = append(all, m)
	}
	for _, m := range all {
		if m.Subscription == "" || m.Group == "" {
			return nil, errors.New("subscription and resourceGroup are said neither in the file nor by flag or environment")
		}
	}
	if len(all) == 0 {
		return nil, errors.New("it has no document")
	}
	return all, nil
}

// maxKeys bounds the keys of one mapping: a network's subnets are the most that a manifest has of them.
const maxKeys = 5000

// bounded returns an error where a document refers to a part of itself, or has a mapping with too many keys or with one
// twice: the decoder compares each key with each other one, and says so of each pair.
func bounded(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: aliases (*%s) are not allowed", n.Line, n.Value)
	}
	if n.Kind == yaml.MappingNode {
		if len(n.Content) > 2*maxKeys {
			return fmt.Errorf("line %d: more than %d keys", n.Line, maxKeys)
		}
		seen := make(map[string]bool, len(n.Content)/2)
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			switch {
			case key.Kind == yaml.AliasNode:
			case key.Kind != yaml.ScalarNode:
				return fmt.Errorf("line %d: a key is a word", key.Line)
			case seen[key.Value]:
				return fmt.Errorf("line %d: %q is there twice", key.Line, key.Value)
			}
			seen[key.Value] = true
		}
	}
	for _, c := range n.Content {
		if err := bounded(c); err != nil {
			return err
		}
	}
	return nil
}

// join returns a manifest of the objects of both.
func (m manifest) join(n manifest) manifest {
	m.Prune = m.Prune || n.Prune
	m.Networks = append(m.Networks, n.Networks...)
	m.Services = append(m.Services, n.Services...)
	m.Endpoints = append(m.Endpoints, n.Endpoints...)
	return m
}

// service returns the service of a name, nil fields where there is none.
func (m *manifest) service(name string) manifestService {
	for _, s := range m.Services {
		if strings.EqualFold(s.Name, name) {
			return s
		}
	}
	return manifestService{Name: name}
}

// network returns the network of a name, nil fields where there is none.
func (m *manifest) network(name string) manifestNetwork {
	for _, n := range m.Networks {
		if strings.EqualFold(n.Name, name) {
			return n
		}
	}
	return manifestNetwork{Name: name}
}

// endpoint returns the endpoint of a name, empty fields where there is none.
func (m *manifest) endpoint(name string) manifestEndpoint {
	for _, e := range m.Endpoints {
		if strings.EqualFold(e.Name, name) {
			return e
		}
	}
	return manifestEndpoint{Name: name}
}

// has reports whether the manifest has an object.
func (m *manifest) has(word, name string) bool {
	var names []string
	switch word {
	case "network":
		for _, n := range m.Networks {
			names = append(names, n.Name)
		}
	case "service":
		for _, s := range m.Services {
			names = append(names, s.Name)
		}
	case "endpoint":
		for _, e := range m.Endpoints {
			names = append(names, e.Name)
		}
	}
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
