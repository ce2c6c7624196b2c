package control

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
