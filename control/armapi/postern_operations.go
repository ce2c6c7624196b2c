package armapi

import "net/http"

// posternNamespace is the provider of what Azure has no operation for.
const posternNamespace = "Postern.Network"

const (
	posternIn    = inSubscription + providers + posternNamespace
	posternGroup = inGroup + providers + posternNamespace
)

// posternOperations are the rows of our own provider. docs/api.md describes them.
var posternOperations = []operation{
	{method: http.MethodGet, pattern: posternIn + "/explain", handle: (*request).getExplain},
	{method: http.MethodGet, pattern: posternIn + "/flows", handle: (*request).listFlows},
	{method: http.MethodGet, pattern: posternIn + "/usages", handle: (*request).listUsages},
	{method: http.MethodGet, pattern: posternIn + "/audit", handle: (*request).listAudit},
	{method: http.MethodPost, pattern: posternIn + "/plan", handle: (*request).postPlan},
	{method: http.MethodPost, pattern: posternIn + "/apply", handle: (*request).postApply},
	{method: http.MethodGet, pattern: posternGroup + "/manifest", handle: (*request).getManifest},

	{method: http.MethodPost, pattern: posternGroup + "/privateLinkServices/{service}/forceDelete", handle: (*request).forceDelete, dry: true},
	{method: http.MethodPost, pattern: posternGroup + "/privateLinkServices/{service}/privateEndpointConnections/{connection}/suspend", handle: (*request).suspend, dry: true},
	{method: http.MethodPost, pattern: posternGroup + "/privateLinkServices/{service}/privateEndpointConnections/{connection}/resume", handle: (*request).resume, dry: true},
	{method: http.MethodPost, pattern: posternGroup + "/privateEndpoints/{endpoint}/askAgain", handle: (*request).askAgain},

	{method: http.MethodGet, pattern: providers + posternNamespace + "/status", handle: (*request).getStatus},
	{method: http.MethodGet, pattern: providers + posternNamespace + "/auditEntries", handle: (*request).listAudit},
	{method: http.MethodGet, pattern: providers + posternNamespace + "/auditLines", handle: (*request).listAuditLines},
	{method: http.MethodGet, pattern: providers + posternNamespace + "/backup", handle: (*request).getBackup},
}
