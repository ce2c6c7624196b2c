package control

import "github.com/postern-link/postern/link"

// Explanation says what would happen to a client, step by step.
type Explanation struct {
	Network   link.ID    `json:"network,omitempty"` // "" where the client is in none
	Answer    string     `json:"answer"`            // what DNS does: "endpoint", "pass", "nodata", "servfail", ...
	Addresses []string   `json:"addresses,omitempty"`
	Endpoint  link.ID    `json:"endpoint,omitempty"`
	Service   link.ID    `json:"service,omitempty"`
	State     link.State `json:"state,omitempty"`
	Allowed   bool       `json:"allowed"`
	Reason    string     `json:"reason,omitempty"` // of a refusal, from the closed list of package policy
	Steps     []Step     `json:"steps"`
}

// Step is one thing that was looked at, in order.
type Step struct {
	What   string `json:"what"`           // view, name, endpoint, connection, source, pin, target
	Result string `json:"result"`         // what was found
	Rule   string `json:"rule,omitempty"` // what decided
}

// Usage is one limit and how much of it is used.
type Usage struct {
	Name    string `json:"name"`   // such as "endpointsPerNetwork"
	Object  string `json:"object"` // of what, "kind id"
	Current int    `json:"currentValue"`
	Limit   int    `json:"limit"`
}

// Manifest is a set of objects that a subscription shall hold. Objects that it doesn't name are left alone,
// unless Prune says that those it once held and no longer names are deleted.
type Manifest struct {
	Subscription string             `json:"subscription"`
	Group        string             `json:"resourceGroup"`
	Prune        bool               `json:"prune,omitempty"`
	Networks     []ManifestNetwork  `json:"networks,omitempty"`
	Services     []ManifestService  `json:"services,omitempty"`
	Endpoints    []ManifestEndpoint `json:"endpoints,omitempty"`
}

// ManifestNetwork is a network of a manifest.
type ManifestNetwork struct {
	Name     string            `json:"name"`
	Prefixes []string          `json:"prefixes"`
	Subnets  map[string]string `json:"subnets,omitempty"` // name to prefix
	Egress   []string          `json:"egress,omitempty"`
}

// ManifestService is a service of a manifest.
type ManifestService struct {
	Name           string   `json:"name"`
	Names          []string `json:"names,omitempty"`
	Port           uint16   `json:"port"`
	Targets        []string `json:"targets"`
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

// Plan is what a manifest would do, or has done.
type Plan struct {
	Changes []PlannedChange `json:"changes"`
	// Begin and Cease are names that start or stop being answered, with their network and addresses.
	Begin []PlannedName `json:"begin,omitempty"`
	Cease []PlannedName `json:"cease,omitempty"`
	Cut   []Flow        `json:"cut,omitempty"` // live flows of this node that would end
}

// PlannedChange is one object that changes.
type PlannedChange struct {
	Object string   `json:"object"`           // "kind/id"
	Verb   string   `json:"verb"`             // created, updated, deleted
	Fields []string `json:"fields,omitempty"` // that differ
}

// PlannedName is a name in a network.
type PlannedName struct {
	Network   link.ID   `json:"network"`
	Name      link.Name `json:"name"`
	Addresses []string  `json:"addresses"`
}
