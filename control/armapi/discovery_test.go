package armapi

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/postern-link/postern/control"
)

// token signs somebody in with a secret, "" for the right one.
func (r *rig) token(name, secret string) answer {
	r.t.Helper()
	if secret == "" {
		secret = secretOf(name)
	}
	form := url.Values{"client_id": {clientOf(name)}, "client_secret": {secret}, "grant_type": {"client_credentials"}, "scope": {r.url + "/.default"}}
	return r.do("", "POST", "/adfs/oauth2/v2.0/token", form.Encode(), "Content-Type: application/x-www-form-urlencoded; charset=utf-8")
}

// TestSignIn is the client credentials grant, as az and Terraform use it.
func TestSignIn(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/adfs/oauth2/v2.0/token", "/adfs/oauth2/token", "/0b000000-0000-4000-8000-0000000000ff/oauth2/v2.0/token", "//common/oauth2/token"} {
		form := url.Values{"client_id": {clientOf("contoso")}, "client_secret": {secretOf("contoso")}, "grant_type": {"client_credentials"}, "scope": {r.url + "/.default openid"}}
		var got tokenBody
		r.do("", "POST", path, form.Encode(), "Content-Type: application/x-www-form-urlencoded").want(200).into(&got)
		if got.Type != "Bearer" || got.Expires < 60 {
			t.Errorf("%s: %+v", path, got)
		}
		parts := strings.Split(got.Token, ".")
		if len(parts) != 3 {
			t.Fatalf("not a JWT: %q", got.Token)
		}
		var claims map[string]any
		b, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil || json.Unmarshal(b, &claims) != nil {
			t.Fatalf("claims %q: %v", b, err)
		}
		for _, c := range []string{"oid", "tid", "appid"} {
			if claims[c] == nil {
				t.Errorf("no claim %s, which Terraform's provider needs", c)
			}
		}
		r.do("", "GET", "/subscriptions", nil, "Authorization: Bearer "+got.Token).want(200)
	}
}

// TestSignInWrong: an unknown client and a wrong secret have the same answer.
func TestSignInWrong(t *testing.T) {
	r := newRig(t)
	post := func(form url.Values) answer {
		return r.do("", "POST", "/adfs/oauth2/v2.0/token", form.Encode(), "Content-Type: application/x-www-form-urlencoded")
	}
	good := url.Values{"client_id": {clientOf("contoso")}, "client_secret": {secretOf("contoso")}, "grant_type": {"client_credentials"}}
	with := func(k, v string) url.Values {
		out := url.Values{}
		for key, value := range good {
			out[key] = value
		}
		out.Set(k, v)
		return out
	}
	post(good).want(200)
	first := post(with("client_secret", "pcs_"+random("wrong"))).want(401)
	for name, form := range map[string]url.Values{
		"an unknown client": with("client_id", clientOf("mallory")), "no secret": with("client_secret", ""), "another's secret": with("client_secret", secretOf("fabrikam")),
		"no client": with("client_id", ""), "a token for a secret": with("client_secret", tokenOf("contoso")),
	} {
		if a := post(form).want(401); string(a.body) != string(first.body) {
			t.Errorf("%s: %s, want %s", name, a.body, first.body)
		}
	}
	post(with("grant_type", "password")).want(400)
	r.do("", "POST", "/adfs/oauth2/token", `{}`).wantError(415, "UnsupportedMediaType")
	r.do("", "POST", "/adfs/oauth2/token", strings.Repeat("x", maxForm+1), "Content-Type: application/x-www-form-urlencoded").want(413)
	r.do("", "GET", "/adfs/oauth2/token", nil).want(401) // as any path that isn't there
}

// TestMetadata: the forms that az and Terraform need, field by field.
func TestMetadata(t *testing.T) {
	r := newRig(t)
	var short map[string]any
	r.do("", "GET", "/metadata/endpoints?api-version=2015-01-01", nil).want(200).into(&short)
	login, _ := short["authentication"].(map[string]any)
	if short["galleryEndpoint"] != r.url || short["graphEndpoint"] != r.url || short["portalEndpoint"] != r.url || login["loginEndpoint"] != r.url+"/adfs" {
		t.Errorf("2015-01-01: %v", short)
	}
	var object metadata2022
	r.do("", "GET", "/metadata/endpoints?api-version=2022-09-01", nil).want(200).into(&object)
	if object.ResourceManager != r.url || object.Authentication.Login != r.url || object.Authentication.Tenant != "common" || object.Authentication.Provider != "AAD" ||
		object.Graph == "" || object.Suffixes.Storage == "" || object.Suffixes.KeyVault == "" || object.Name == "" {
		t.Errorf("2022-09-01: %+v", object)
	}
	var all []metadata2022
	r.do("", "GET", "/metadata/endpoints?api-version=2019-05-01", nil).want(200).into(&all)
	if len(all) != 1 || all[0].Authentication.Login != r.url {
		t.Errorf("2019-05-01: %+v", all)
	}
	for _, path := range []string{"/adfs/.well-known/openid-configuration", "/adfs/adfs/.well-known/openid-configuration", "/common/v2.0/.well-known/openid-configuration"} {
		var doc openID
		r.do("", "GET", path, nil).want(200).into(&doc)
		if !strings.HasPrefix(doc.Token, r.url+"/") || !strings.HasSuffix(doc.Token, "/oauth2/v2.0/token") || doc.Issuer == "" || doc.Authorization == "" {
			t.Errorf("%s: %+v", path, doc)
		}
	}
}

// TestURL: with a URL configured, all that clients are told is below it, and its path is cut off requests.
func TestURL(t *testing.T) {
	u, err := url.Parse("https://postern.example/arm/")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config, _ *control.Config) { c.URL = u })
	var m metadata2022
	r.do("", "GET", "/arm/metadata/endpoints?api-version=2022-09-01", nil).want(200).into(&m)
	if m.ResourceManager != "https://postern.example/arm" {
		t.Errorf("%+v", m)
	}
	r.do("contoso", "GET", "/arm/subscriptions", nil).want(200)
	r.do("contoso", "GET", "/subscriptions", nil).want(200)
	r.do("contoso", "GET", "/army/subscriptions", nil).want(404)
}
