package armapi

import (
	"net/http"
	"strings"

	"github.com/postern-link/postern/control"
)

// frontOperations are what clients ask before they come to the resources: where to sign in, a token, which
// subscriptions, providers and resource groups there are.
var frontOperations = []operation{
	{method: http.MethodGet, pattern: "/metadata/endpoints", handle: (*request).getMetadata, open: true},
	{method: http.MethodGet, pattern: "/{tenant}/.well-known/openid-configuration", handle: (*request).getOpenID, open: true},
	{method: http.MethodGet, pattern: "/{tenant}/v2.0/.well-known/openid-configuration", handle: (*request).getOpenID, open: true},
	{method: http.MethodGet, pattern: "/adfs/adfs/.well-known/openid-configuration", handle: (*request).getOpenID, open: true},
	{method: http.MethodPost, pattern: "/{tenant}/oauth2/token", handle: (*request).postToken, open: true},
	{method: http.MethodPost, pattern: "/{tenant}/oauth2/v2.0/token", handle: (*request).postToken, open: true},

	{method: http.MethodGet, pattern: "/tenants", handle: (*request).listTenants},
	{method: http.MethodGet, pattern: "/subscriptions", handle: (*request).listSubscriptions},
	{method: http.MethodGet, pattern: inSubscription, handle: (*request).getSubscription},
	{method: http.MethodGet, pattern: inSubscription + "/locations", handle: (*request).listLocations},
	{method: http.MethodGet, pattern: inSubscription + "/providers", handle: (*request).listProviders},
	{method: http.MethodGet, pattern: inSubscription + "/providers/{namespace}", handle: (*request).getProvider},
	{method: http.MethodPost, pattern: inSubscription + "/providers/{namespace}/register", handle: (*request).getProvider},

	{method: http.MethodGet, pattern: inSubscription + "/resourceGroups", handle: (*request).listGroups},
	{method: http.MethodPut, pattern: inGroup, handle: (*request).putGroup},
	{method: http.MethodPatch, pattern: inGroup, handle: (*request).patchGroup},
	{method: http.MethodGet, pattern: inGroup, handle: (*request).getGroup},
	{method: http.MethodHead, pattern: inGroup, handle: (*request).headGroup},
	{method: http.MethodDelete, pattern: inGroup, handle: (*request).deleteGroup},
	{method: http.MethodGet, pattern: inGroup + "/resources", handle: (*request).listResources},
	{method: http.MethodGet, pattern: inSubscription + "/resources", handle: (*request).listResources},
}

type tenantBody struct {
	ID          string `json:"id"`
	TenantID    string `json:"tenantId"`
	DisplayName string `json:"displayName"`
	Category    string `json:"tenantCategory"`
}

// listTenants answers with the caller's own tenant.
func (r *request) listTenants() (reply, error) {
	body := tenantBody{ID: "/tenants/" + r.caller.TenantID, TenantID: r.caller.TenantID, Category: "Home"}
	for _, t := range r.api.Directory.Tenants() {
		if t.ID == r.caller.TenantID {
			body.DisplayName = t.Title
		}
	}
	return list([]tenantBody{body}), nil
}

type subscriptionBody struct {
	ID             string   `json:"id"`
	SubscriptionID string   `json:"subscriptionId"`
	DisplayName    string   `json:"displayName"`
	State          string   `json:"state"`
	TenantID       string   `json:"tenantId"`
	Policies       struct{} `json:"subscriptionPolicies"`
}

// listSubscriptions answers with those in which the caller has a role.
func (r *request) listSubscriptions() (reply, error) {
	all := []subscriptionBody{}
	for _, sub := range r.caller.Subscriptions() {
		if body, ok := r.subscriptionBody(sub); ok {
			all = append(all, body)
		}
	}
	return list(all), nil
}

func (r *request) subscriptionBody(sub string) (subscriptionBody, bool) {
	t, ok := r.api.Directory.SubscriptionOwner(sub)
	body := subscriptionBody{ID: "/subscriptions/" + sub, SubscriptionID: sub, State: "Enabled", TenantID: t.ID}
	for _, s := range t.Subscriptions {
		if s.ID == sub {
			body.DisplayName = s.Name
		}
	}
	return body, ok
}

func (r *request) getSubscription() (reply, error) {
	body, there := r.subscriptionBody(r.subscription())
	if !there {
		return reply{}, control.ErrNoSubscription
	}
	return ok(body), nil
}

type locationBody struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Type        string `json:"type"`
	DisplayName string `json:"displayName"`
	Regional    string `json:"regionalDisplayName"`
}

// listLocations answers with the one that there is. Others are taken as they are sent.
func (r *request) listLocations() (reply, error) {
	return list([]locationBody{{ID: "/subscriptions/" + r.subscription() + "/locations/" + defaultLocation,
		Name: defaultLocation, Type: "Region", DisplayName: "Local", Regional: "Local"}}), nil
}

type providerBody struct {
	ID           string             `json:"id"`
	Namespace    string             `json:"namespace"`
	State        string             `json:"registrationState"`
	Policy       string             `json:"registrationPolicy"`
	ResourceType []resourceTypeBody `json:"resourceTypes"`
}

type resourceTypeBody struct {
	Type      string   `json:"resourceType"`
	Locations []string `json:"locations"`
	Versions  []string `json:"apiVersions"`
}

// namespaces are the providers that there are. All are registered.
var namespaces = []string{"Microsoft.Network", "Microsoft.Resources", "Postern.Network"}

// knownVersions are the API versions that a client that asks for one is told; any other does as well.
var knownVersions = []string{"2025-05-01", "2025-03-01", "2025-01-01", "2024-06-01", "2022-01-01", "2021-05-01", "2020-06-01"}

func (r *request) listProviders() (reply, error) {
	all := []providerBody{}
	for _, n := range namespaces {
		all = append(all, r.providerBody(n))
	}
	return list(all), nil
}

// getProvider also answers a registration: there is nothing to do.
func (r *request) getProvider() (reply, error) {
	for _, n := range namespaces {
		if strings.EqualFold(n, r.path("namespace")) {
			return ok(r.providerBody(n)), nil
		}
	}
	return reply{}, fail(http.StatusNotFound, "InvalidResourceNamespace", "The resource namespace %s is invalid.", quote(r.path("namespace")))
}

// providerBody finds the resource types of a namespace in the patterns of the operations.
func (r *request) providerBody(namespace string) providerBody {
	body := providerBody{ID: "/subscriptions/" + r.subscription() + "/providers/" + namespace, Namespace: namespace,
		State: "Registered", Policy: "RegistrationRequired", ResourceType: []resourceTypeBody{}}
	for _, t := range r.api.types[strings.ToLower(namespace)] {
		body.ResourceType = append(body.ResourceType, resourceTypeBody{Type: t, Locations: []string{defaultLocation}, Versions: knownVersions})
	}
	return body
}

// resourceTypes returns the types of each namespace, in lower case, that can be put.
func resourceTypes(rows []operation) map[string][]string {
	all := map[string][]string{"microsoft.resources": {"resourceGroups"}}
	for _, o := range rows {
		_, kind, _ := strings.Cut(o.pattern, inGroup+providers)
		parts := strings.Split(kind, "/")
		if o.method == http.MethodPut && len(parts) == 3 {
			n := strings.ToLower(parts[0])
			all[n] = append(all[n], parts[1])
		}
	}
	return all
}
