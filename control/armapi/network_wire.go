package armapi

import "encoding/json"

// The structs of Microsoft.Network as they are on the wire, in both directions: what a request says of
// read-only fields is read and not used, so that a client may get, change and put. Names are Azure's.

// succeeded is the provisioningState of everything that is there: operations complete at once.
const succeeded = "Succeeded"

// array is a list that is always there: a client that takes an absent list for a pointer would crash.
type array[T any] []T

// MarshalJSON writes no elements as [].
func (a array[T]) MarshalJSON() ([]byte, error) {
	if a == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(a))
}

// part is what a child resource has in common with others.
type part struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
}

// head is what a resource of its own has in common with others.
type head struct {
	part
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags"`
}

// subResource is a resource by its ID.
type subResource struct {
	ID string `json:"id,omitempty"`
}

type virtualNetwork struct {
	head
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string        `json:"provisioningState"`
		ResourceGUID      string        `json:"resourceGuid"`
		AddressSpace      addressSpace  `json:"addressSpace"`
		Subnets           array[subnet] `json:"subnets"`
	} `json:"properties"`
}

type addressSpace struct {
	AddressPrefixes array[string] `json:"addressPrefixes"`
}

type subnet struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string `json:"provisioningState"`
		// One prefix or several: a client reads the form that it wrote.
		AddressPrefix    string          `json:"addressPrefix,omitempty"`
		AddressPrefixes  []string        `json:"addressPrefixes,omitempty"`
		EndpointPolicies string          `json:"privateEndpointNetworkPolicies"`
		ServicePolicies  string          `json:"privateLinkServiceNetworkPolicies"`
		Delegations      array[struct{}] `json:"delegations"`
	} `json:"properties"`
}

type networkInterface struct {
	head
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState  string                 `json:"provisioningState"`
		ResourceGUID       string                 `json:"resourceGuid"`
		IPConfigurations   array[ipConfiguration] `json:"ipConfigurations"`
		PrivateEndpoint    *subResource           `json:"privateEndpoint,omitempty"`
		PrivateLinkService *subResource           `json:"privateLinkService,omitempty"`
		NicType            string                 `json:"nicType"`
	} `json:"properties"`
}

// ipConfiguration is one of a network interface, or of a private link service.
type ipConfiguration struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string       `json:"provisioningState,omitempty"`
		Primary           bool         `json:"primary"`
		Address           string       `json:"privateIPAddress,omitempty"`
		Method            string       `json:"privateIPAllocationMethod,omitempty"`
		Version           string       `json:"privateIPAddressVersion,omitempty"`
		Subnet            *subResource `json:"subnet,omitempty"`
	} `json:"properties"`
}

type privateEndpoint struct {
	head
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string                    `json:"provisioningState"`
		ResourceGUID      string                    `json:"resourceGuid"`
		Subnet            subResource               `json:"subnet"`
		Automatic         array[endpointConnection] `json:"privateLinkServiceConnections"`
		Manual            array[endpointConnection] `json:"manualPrivateLinkServiceConnections"`
		IPConfigurations  array[endpointAddress]    `json:"ipConfigurations"`
		InterfaceName     string                    `json:"customNetworkInterfaceName"`
		IPVersion         string                    `json:"ipVersionType"`
		Interfaces        array[subResource]        `json:"networkInterfaces"`
		DNS               array[dnsConfig]          `json:"customDnsConfigs"`
		SecurityGroups    array[subResource]        `json:"applicationSecurityGroups"`
	} `json:"properties"`
}

// endpointConnection is a connection as its consumer has it.
type endpointConnection struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string          `json:"provisioningState,omitempty"`
		Service           string          `json:"privateLinkServiceId"`
		Groups            array[string]   `json:"groupIds"`
		Message           string          `json:"requestMessage,omitempty"`
		State             connectionState `json:"privateLinkServiceConnectionState"`
	} `json:"properties"`
}

type connectionState struct {
	Status      string `json:"status"`
	Description string `json:"description"`
	Actions     string `json:"actionsRequired"`
}

// endpointAddress is an address that the consumer has chosen.
type endpointAddress struct {
	Name       string `json:"name"`
	Properties struct {
		Address string `json:"privateIPAddress"`
		Group   string `json:"groupId"`
		Member  string `json:"memberName"`
	} `json:"properties"`
}

type dnsConfig struct {
	FQDN      string   `json:"fqdn"`
	Addresses []string `json:"ipAddresses"`
}

type privateLinkService struct {
	head
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string                   `json:"provisioningState"`
		ResourceGUID      string                   `json:"resourceGuid"`
		Alias             string                   `json:"alias"`
		Proxy             bool                     `json:"enableProxyProtocol"`
		FQDNs             array[string]            `json:"fqdns"`
		Visibility        subscriptions            `json:"visibility"`
		AutoApproval      subscriptions            `json:"autoApproval"`
		Frontends         array[subResource]       `json:"loadBalancerFrontendIpConfigurations"`
		Destination       string                   `json:"destinationIPAddress,omitempty"`
		IPConfigurations  array[ipConfiguration]   `json:"ipConfigurations"`
		AccessMode        string                   `json:"accessMode"`
		Interfaces        array[subResource]       `json:"networkInterfaces"`
		Connections       array[serviceConnection] `json:"privateEndpointConnections"`
	} `json:"properties"`
}

// subscriptions is an access list of a private link service.
type subscriptions struct {
	Subscriptions array[string] `json:"subscriptions"`
}

// serviceConnection is a connection as its provider has it.
type serviceConnection struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string          `json:"provisioningState"`
		Endpoint          subResource     `json:"privateEndpoint"`
		Location          string          `json:"privateEndpointLocation"`
		LinkIdentifier    string          `json:"linkIdentifier"`
		State             connectionState `json:"privateLinkServiceConnectionState"`
		Lasting           bool            `json:"lasting,omitempty"`   // ours: see docs/api.md
		Suspended         bool            `json:"suspended,omitempty"` // ours, only read
	} `json:"properties"`
}

type zoneGroup struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string            `json:"provisioningState"`
		Configs           array[zoneConfig] `json:"privateDnsZoneConfigs"`
	} `json:"properties"`
}

type zoneConfig struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string                 `json:"provisioningState,omitempty"`
		Zone              string                 `json:"privateDnsZoneId"`
		RecordSets        array[zoneGroupRecord] `json:"recordSets"`
	} `json:"properties"`
}

// zoneGroupRecord is one record set that an endpoint has in a zone of its group.
type zoneGroupRecord struct {
	Type              string   `json:"recordType"`
	Name              string   `json:"recordSetName"`
	FQDN              string   `json:"fqdn"`
	TTL               int      `json:"ttl"`
	Addresses         []string `json:"ipAddresses"`
	ProvisioningState string   `json:"provisioningState"`
}
