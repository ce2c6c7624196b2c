package armapi

// A load balancer as it is on the wire. What a private link service needs of it is a frontend, the one
// rule of that, and the addresses of the rule's backend pool; the rest is kept and shown.

type loadBalancer struct {
	head
	Etag       weakTag            `json:"etag,omitempty"`
	SKU        *balancerSKU       `json:"sku,omitempty"`
	Properties balancerProperties `json:"properties"`
}

type balancerSKU struct {
	Name string `json:"name,omitempty"`
	Tier string `json:"tier,omitempty"`
}

type balancerProperties struct {
	ProvisioningState string                  `json:"provisioningState,omitempty"`
	ResourceGUID      string                  `json:"resourceGuid,omitempty"`
	Frontends         array[balancerFrontend] `json:"frontendIPConfigurations"`
	Pools             array[balancerPool]     `json:"backendAddressPools"`
	Rules             array[balancerRule]     `json:"loadBalancingRules"`
	Probes            array[balancerProbe]    `json:"probes"`
	NatRules          array[struct{}]         `json:"inboundNatRules"`
	NatPools          array[struct{}]         `json:"inboundNatPools"`
	OutboundRules     array[struct{}]         `json:"outboundRules"`
}

type balancerFrontend struct {
	part
	Etag       weakTag  `json:"etag,omitempty"`
	Zones      []string `json:"zones,omitempty"`
	Properties struct {
		ProvisioningState string        `json:"provisioningState,omitempty"`
		Address           string        `json:"privateIPAddress,omitempty"`
		Method            string        `json:"privateIPAllocationMethod,omitempty"`
		Version           string        `json:"privateIPAddressVersion,omitempty"`
		Subnet            *subResource  `json:"subnet,omitempty"`
		PublicAddress     *subResource  `json:"publicIPAddress,omitempty"`
		Rules             []subResource `json:"loadBalancingRules,omitempty"` // read-only
	} `json:"properties"`
}

type balancerPool struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string                 `json:"provisioningState,omitempty"`
		Addresses         array[balancerBackend] `json:"loadBalancerBackendAddresses"`
		Network           *subResource           `json:"virtualNetwork,omitempty"`
		Rules             []subResource          `json:"loadBalancingRules,omitempty"` // read-only
	} `json:"properties"`
}

type balancerBackend struct {
	Name       string `json:"name,omitempty"`
	Properties struct {
		Address    string       `json:"ipAddress,omitempty"`
		Network    *subResource `json:"virtualNetwork,omitempty"`
		Subnet     *subResource `json:"subnet,omitempty"`
		AdminState string       `json:"adminState,omitempty"`
	} `json:"properties"`
}

type balancerRule struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string        `json:"provisioningState,omitempty"`
		Frontend          *subResource  `json:"frontendIPConfiguration,omitempty"`
		Pool              *subResource  `json:"backendAddressPool,omitempty"`
		Pools             []subResource `json:"backendAddressPools,omitempty"`
		Probe             *subResource  `json:"probe,omitempty"`
		Protocol          string        `json:"protocol,omitempty"`
		FrontendPort      int           `json:"frontendPort"`
		BackendPort       int           `json:"backendPort"`
		IdleTimeout       int           `json:"idleTimeoutInMinutes,omitempty"`
		FloatingIP        bool          `json:"enableFloatingIP"`
		TCPReset          bool          `json:"enableTcpReset"`
		NoOutboundSNAT    bool          `json:"disableOutboundSnat"`
		Distribution      string        `json:"loadDistribution,omitempty"`
	} `json:"properties"`
}

type balancerProbe struct {
	part
	Etag       weakTag `json:"etag,omitempty"`
	Properties struct {
		ProvisioningState string        `json:"provisioningState,omitempty"`
		Protocol          string        `json:"protocol,omitempty"`
		Port              int           `json:"port"`
		Interval          int           `json:"intervalInSeconds,omitempty"`
		Count             int           `json:"numberOfProbes,omitempty"`
		Threshold         int           `json:"probeThreshold,omitempty"`
		Path              string        `json:"requestPath,omitempty"`
		Rules             []subResource `json:"loadBalancingRules,omitempty"` // read-only
	} `json:"properties"`
}
