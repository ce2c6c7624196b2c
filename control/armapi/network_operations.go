package armapi

import "net/http"

const (
	microsoftNetwork = providers + "Microsoft.Network/"
	inLocation       = microsoftNetwork + "locations/{location}/"
	inVnet           = inGroup + microsoftNetwork + "virtualNetworks/{network}"
	inPE             = inGroup + microsoftNetwork + "privateEndpoints/{endpoint}"
	inPLS            = inGroup + microsoftNetwork + "privateLinkServices/{service}"
	inNIC            = inGroup + microsoftNetwork + "networkInterfaces/{interface}"
	inLB             = inGroup + microsoftNetwork + "loadBalancers/{balancer}"
	aSubnet          = inVnet + "/subnets/{subnet}"
	aConnect         = inPLS + "/privateEndpointConnections/{connection}"
	aZoneGrp         = inPE + "/privateDnsZoneGroups/{zoneGroup}"
)

// networkOperations are the rows of Microsoft.Network but for private DNS.
var networkOperations = []operation{
	{method: http.MethodPut, pattern: inVnet, handle: (*request).putNetwork},
	{method: http.MethodGet, pattern: inVnet, handle: (*request).getNetwork},
	{method: http.MethodPatch, pattern: inVnet, handle: (*request).patchNetwork},
	{method: http.MethodDelete, pattern: inVnet, handle: (*request).deleteNetwork, dry: true},
	{method: http.MethodGet, pattern: inGroup + microsoftNetwork + "virtualNetworks", handle: (*request).listNetworks},
	{method: http.MethodGet, pattern: inSubscription + microsoftNetwork + "virtualNetworks", handle: (*request).listNetworks},
	{method: http.MethodPut, pattern: aSubnet, handle: (*request).putSubnet},
	{method: http.MethodGet, pattern: aSubnet, handle: (*request).getSubnet},
	{method: http.MethodDelete, pattern: aSubnet, handle: (*request).deleteSubnet},
	{method: http.MethodGet, pattern: inVnet + "/subnets", handle: (*request).listSubnets},

	{method: http.MethodPut, pattern: inPE, handle: (*request).putEndpoint},
	{method: http.MethodGet, pattern: inPE, handle: (*request).getEndpoint},
	{method: http.MethodDelete, pattern: inPE, handle: (*request).deleteEndpoint, dry: true},
	{method: http.MethodGet, pattern: inGroup + microsoftNetwork + "privateEndpoints", handle: (*request).listEndpoints},
	{method: http.MethodGet, pattern: inSubscription + microsoftNetwork + "privateEndpoints", handle: (*request).listEndpoints},
	{method: http.MethodPut, pattern: aZoneGrp, handle: (*request).putZoneGroup},
	{method: http.MethodGet, pattern: aZoneGrp, handle: (*request).getZoneGroup},
	{method: http.MethodDelete, pattern: aZoneGrp, handle: (*request).deleteZoneGroup},
	{method: http.MethodGet, pattern: inPE + "/privateDnsZoneGroups", handle: (*request).listZoneGroups},

	{method: http.MethodPut, pattern: inPLS, handle: (*request).putService},
	{method: http.MethodGet, pattern: inPLS, handle: (*request).getService},
	{method: http.MethodDelete, pattern: inPLS, handle: (*request).deleteService, dry: true},
	{method: http.MethodGet, pattern: inGroup + microsoftNetwork + "privateLinkServices", handle: (*request).listServices},
	{method: http.MethodGet, pattern: inSubscription + microsoftNetwork + "privateLinkServices", handle: (*request).listServices},
	{method: http.MethodPut, pattern: aConnect, handle: (*request).putConnection, dry: true},
	{method: http.MethodGet, pattern: aConnect, handle: (*request).getConnection},
	{method: http.MethodDelete, pattern: aConnect, handle: (*request).deleteConnection, dry: true},
	{method: http.MethodGet, pattern: inPLS + "/privateEndpointConnections", handle: (*request).listConnections},

	{method: http.MethodGet, pattern: inNIC, handle: (*request).getInterface},
	{method: http.MethodGet, pattern: inGroup + microsoftNetwork + "networkInterfaces", handle: (*request).listInterfaces},
	{method: http.MethodGet, pattern: inSubscription + microsoftNetwork + "networkInterfaces", handle: (*request).listInterfaces},

	{method: http.MethodPut, pattern: inLB, handle: (*request).putBalancer},
	{method: http.MethodGet, pattern: inLB, handle: (*request).getBalancer},
	{method: http.MethodPatch, pattern: inLB, handle: (*request).patchBalancer},
	{method: http.MethodDelete, pattern: inLB, handle: (*request).deleteBalancer},
	{method: http.MethodGet, pattern: inGroup + microsoftNetwork + "loadBalancers", handle: (*request).listBalancers},
	{method: http.MethodGet, pattern: inSubscription + microsoftNetwork + "loadBalancers", handle: (*request).listBalancers},
	{method: http.MethodGet, pattern: inLB + "/frontendIPConfigurations", handle: (*request).listFrontends},
	{method: http.MethodGet, pattern: inLB + "/frontendIPConfigurations/{frontend}", handle: (*request).getFrontend},

	{method: http.MethodPost, pattern: inSubscription + inLocation + "checkPrivateLinkServiceVisibility", handle: (*request).postVisibility},
	{method: http.MethodPost, pattern: inGroup + inLocation + "checkPrivateLinkServiceVisibility", handle: (*request).postVisibility},
	{method: http.MethodGet, pattern: inSubscription + inLocation + "autoApprovedPrivateLinkServices", handle: (*request).listAutoApproved},
	{method: http.MethodGet, pattern: inGroup + inLocation + "autoApprovedPrivateLinkServices", handle: (*request).listAutoApproved},
	{method: http.MethodGet, pattern: inSubscription + inLocation + "availablePrivateEndpointTypes", handle: (*request).listEndpointTypes},
	{method: http.MethodGet, pattern: inGroup + inLocation + "availablePrivateEndpointTypes", handle: (*request).listEndpointTypes},
}
