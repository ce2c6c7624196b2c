package cli

import (
	"encoding/json"
	"strings"
)

// resource is any resource of the API: the parts of it that tables show, and all of it as it was sent.
type resource struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Location   string            `json:"location"`
	Etag       string            `json:"etag"`
	Tags       map[string]string `json:"tags"`
	Properties properties        `json:"properties"`

	raw json.RawMessage
}

// properties are those of services, endpoints, connections, networks and network interfaces.
type properties struct {
	// of a service
	Alias        string     `json:"alias"`
	FQDNs        []string   `json:"fqdns"`
	Destination  string     `json:"destinationIPAddress"`
	Frontends    []ref      `json:"loadBalancerFrontendIpConfigurations"`
	Visibility   parties    `json:"visibility"`
	AutoApproval parties    `json:"autoApproval"`
	Connections  []resource `json:"privateEndpointConnections"`
	// of an endpoint
	Subnet     ref        `json:"subnet"`
	Auto       []resource `json:"privateLinkServiceConnections"`
	Manual     []resource `json:"manualPrivateLinkServiceConnections"`
	DNS        []dnsName  `json:"customDnsConfigs"`
	Interfaces []ref      `json:"networkInterfaces"`
	// of both halves of a connection
	Service  string `json:"privateLinkServiceId"`
	Endpoint ref    `json:"privateEndpoint"`
	LinkID   string `json:"linkIdentifier"`
	State    state  `json:"privateLinkServiceConnectionState"`
	Lasting  bool   `json:"lasting"`
	// Suspended is of the provider's half.
	Suspended bool `json:"suspended"`
	// of a network
	Space struct {
		Prefixes []string `json:"addressPrefixes"`
	} `json:"addressSpace"`
	Subnets []resource `json:"subnets"`
	Prefix  string     `json:"addressPrefix"`
	// of a network interface
	Configurations []resource `json:"ipConfigurations"`
	Address        string     `json:"privateIPAddress"`
}

// parties is a list of who may do something.
type parties struct {
	Subscriptions []string `json:"subscriptions"`
}

type ref struct {
	ID string `json:"id"`
}

type state struct {
	Status      string `json:"status"`
	Description string `json:"description"`
}

type dnsName struct {
	FQDN      string   `json:"fqdn"`
	Addresses []string `json:"ipAddresses"`
}

// UnmarshalJSON implements [json.Unmarshaler].
func (r *resource) UnmarshalJSON(text []byte) error {
	type plain resource
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	*r = resource(p)
	r.raw = append(json.RawMessage(nil), text...)
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (r resource) MarshalJSON() ([]byte, error) { return r.raw, nil }

// group returns the resource group that a resource is in.
func (r *resource) group() string {
	if id, ok := parseResourceID(r.ID); ok {
		return id.group
	}
	return ""
}

// connection returns the consumer's half of an endpoint's connection.
func (r *resource) connection() resource {
	for _, list := range [][]resource{r.Properties.Auto, r.Properties.Manual} {
		if len(list) > 0 {
			return list[0]
		}
	}
	return resource{}
}

// network returns the network that an endpoint is in.
func (r *resource) network() string {
	network, _, _ := strings.Cut(r.Properties.Subnet.ID, "/subnets/")
	return last(network)
}

// words joins what is shown in one cell.
func words(list []string) string { return strings.Join(list, " ") }

// short is the name of an object of the same group, or the whole of what else an ID is.
func short(id string) string {
	if r, ok := parseResourceID(id); ok {
		return r.names[len(r.names)-1]
	}
	return id
}
