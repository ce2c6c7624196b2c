package armapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/postern-link/postern/control/identity"
)

// authority is where az signs in: of the form of ADFS, since for others it asks login.microsoftonline.com
// about them first.
const authority = "adfs"

// metadata2015 is what "az cloud register" reads.
type metadata2015 struct {
	Gallery        string             `json:"galleryEndpoint"`
	Graph          string             `json:"graphEndpoint"`
	Portal         string             `json:"portalEndpoint"`
	Authentication authentication2015 `json:"authentication"`
}

type authentication2015 struct {
	Login     string   `json:"loginEndpoint"`
	Audiences []string `json:"audiences"`
}

// metadata2022 is what Terraform's provider reads; it needs each of the fields. The list of it is what az
// reads where ARM_CLOUD_METADATA_URL says.
type metadata2022 struct {
	Name            string             `json:"name"`
	ResourceManager string             `json:"resourceManager"`
	Graph           string             `json:"microsoftGraphResourceId"`
	Portal          string             `json:"portal"`
	Gallery         string             `json:"gallery"`
	Authentication  authentication2022 `json:"authentication"`
	Suffixes        suffixes           `json:"suffixes"`
}

type authentication2022 struct {
	Login     string   `json:"loginEndpoint"`
	Audiences []string `json:"audiences"`
	Tenant    string   `json:"tenant"`
	Provider  string   `json:"identityProvider"`
}

// suffixes are of services that aren't here; without the names the provider doesn't start.
type suffixes struct {
	Storage  string `json:"storage"`
	KeyVault string `json:"keyVaultDns"`
}

// cloudName is the name of this cloud to clients.
const cloudName = "Postern"

// getMetadata tells where what is. Its form is a matter of the API version: up to 2018 the short one, then
// an object, or a list of it where the client asks for version 2019-05-01, as az does.
func (r *request) getMetadata() (reply, error) {
	base := r.base()
	version := r.query("api-version")
	if version < "2019" {
		return ok(metadata2015{Gallery: base, Graph: base, Portal: base,
			Authentication: authentication2015{base + "/" + authority, []string{base + "/"}}}), nil
	}
	host := r.Host
	if u, err := url.Parse(base); err == nil {
		host = u.Hostname()
	}
	m := metadata2022{Name: cloudName, ResourceManager: base, Graph: base + "/graph", Portal: base, Gallery: base,
		Authentication: authentication2022{base, []string{base + "/"}, "common", "AAD"},
		Suffixes:       suffixes{"storage." + host, "vault." + host}}
	if version < "2020" {
		return reply{body: []metadata2022{m}}, nil
	}
	return ok(m), nil
}

type openID struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Methods       []string `json:"token_endpoint_auth_methods_supported"`
	Responses     []string `json:"response_types_supported"`
	Grants        []string `json:"grant_types_supported"`
}

// getOpenID tells where tokens are (OpenID Connect Discovery 1.0, section 4).
func (r *request) getOpenID() (reply, error) {
	tenant := authority
	if t := r.path("tenant"); t != "" && !strings.EqualFold(t, authority) {
		if !tenantForm(t) {
			return reply{}, fail(http.StatusNotFound, "InvalidTenant", "There is no tenant %s.", quote(t))
		}
		tenant = t
	}
	at := r.base() + "/" + tenant
	return ok(openID{Issuer: at, Authorization: at + "/oauth2/v2.0/authorize", Token: at + "/oauth2/v2.0/token",
		Methods: []string{"client_secret_post", "client_secret_basic"}, Responses: []string{"code"}, Grants: []string{"client_credentials"}}), nil
}

// tenantForm reports whether s could be in an authority: which tenant is there isn't told before a sign-in.
func tenantForm(s string) bool { return len(s) <= 80 && nameForm.MatchString(s) }

type tokenBody struct {
	Type    string `json:"token_type"`
	Expires int    `json:"expires_in"`
	Ext     int    `json:"ext_expires_in"`
	Token   string `json:"access_token"`
}

// oauthError is how a token endpoint refuses (RFC 6749, section 5.2).
type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// maxForm bounds the body of a sign-in.
const maxForm = 16 << 10

// postToken is the client credentials grant (RFC 6749, section 4.4). A wrong ID and a wrong secret
// have one answer.
func (r *request) postToken() (reply, error) {
	if !strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/x-www-form-urlencoded") {
		return reply{}, fail(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "The content type must be application/x-www-form-urlencoded.")
	}
	b, err := r.read(maxForm)
	if err != nil {
		return reply{}, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return oauth(http.StatusBadRequest, "invalid_request", "The form is malformed."), nil
	}
	if g := form.Get("grant_type"); g != "client_credentials" {
		return oauth(http.StatusBadRequest, "unsupported_grant_type", "The grant type must be client_credentials."), nil
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, basic := r.BasicAuth(); basic {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	audience := form.Get("resource")
	if scope, _, _ := strings.Cut(form.Get("scope"), " "); scope != "" {
		audience = strings.TrimSuffix(scope, "/.default")
	}
	token, seconds, err := r.api.Directory.IssueToken(r.Context(), id, secret, audience, r.base()+"/"+authority)
	if errors.Is(err, identity.ErrUnauthenticated) {
		if wait, ok := r.api.sources.take(neighbourhood(sourceOf(r.RemoteAddr)), r.api.Clock()); !ok {
			return reply{}, tooMany(wait)
		}
		return oauth(http.StatusUnauthorized, "invalid_client", "The client or its secret is not valid."), nil
	}
	if err != nil {
		return reply{}, err
	}
	return ok(tokenBody{Type: "Bearer", Expires: seconds, Ext: seconds, Token: token}), nil
}

func oauth(status int, code, description string) reply {
	return reply{status: status, body: oauthError{code, description}}
}
