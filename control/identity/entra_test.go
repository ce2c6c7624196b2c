package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// TestEntra runs tokens of both versions, as Entra ID writes them, through issuers with its names.
func TestEntra(t *testing.T) {
	const other = "00000000-0000-4000-8000-0000000000ff"
	ca := newAuthority(t, "corp")
	cert := ca.leaf(t, "CN=entra", func(c *x509.Certificate) { c.DNSNames = []string{"login.microsoftonline.com", "sts.windows.net"} })
	key := rsaKey(t, "entra", 2048)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		issuer := "https://" + q.Host + strings.TrimSuffix(q.URL.Path, "/.well-known/openid-configuration")
		if strings.HasPrefix(q.Host, "sts.") {
			issuer += "/"
		}
		if strings.HasSuffix(q.URL.Path, "/keys") {
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.private.Public(), KeyID: "entra", Use: "sig"}}})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": "https://login.microsoftonline.com/common/discovery/keys"})
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	v2 := "https://login.microsoftonline.com/" + contosoID + "/v2.0"
	v1 := "https://sts.windows.net/" + contosoID + "/"
	rule := func(name, issuer, claims string) string {
		return `{"name": "` + name + `", "tenant": "contoso", "roles": [{"subscription": "` + contosoS + `", "role": "network"}], "oidc": [{"issuer": "` + issuer + `", "claims": {` + claims + `}}]}`
	}
	path := put(t, who(strings.Join([]string{
		rule("alice", v2, `"oid": "alice-oid"`), rule("app", v2, `"appid": "app-id"`), rule("app1", v1, `"azp": "app-id"`),
		rule("admins", v2, `"groups": "admin-group"`), rule("deployers", v2, `"roles": "Deploy"`), rule("mail", v2, `"email": "root@contoso.example"`),
	}, ","), `"issuers": [{"url": "https://login.microsoftonline.com/{tenantid}/v2.0", "tenants": ["`+contosoID+`", "`+other+`"], "audiences": ["api://postern"], "ca": "`+ca.file(t)+`"},
		{"url": "`+v1+`", "audiences": ["api://postern"], "ca": "`+ca.file(t)+`"}]`))
	d := start(t, path, Options{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}})
	for _, tc := range []struct {
		name, issuer string
		claims       map[string]any
		want         string
		roles        int
	}{
		{"user of version 2", v2, map[string]any{"oid": "alice-oid", "tid": contosoID, "preferred_username": "alice@contoso.example"}, "alice", 1},
		{"user of a group", v2, map[string]any{"oid": "x", "tid": contosoID, "preferred_username": "bob@contoso.example", "groups": []string{"g", "admin-group"}}, "admins/bob@contoso.example", 1},
		{"user of two groups", v2, map[string]any{"oid": "x", "tid": contosoID, "upn": "bob@contoso.example", "groups": []string{"admin-group"}, "roles": []string{"Deploy"}}, "admins/bob@contoso.example", 2},
		{"user who calls himself an identity", v2, map[string]any{"tid": contosoID, "preferred_username": "alice/\n", "groups": []string{"admin-group"}}, "admins/alice", 1},
		{"more groups than a token holds", v2, map[string]any{"tid": contosoID, "_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://127.0.0.1:1/"}}}, "", 0},
		{"application of version 2", v2, map[string]any{"azp": "app-id", "tid": contosoID}, "app/app-id", 1},
		{"application of version 1", v1, map[string]any{"appid": "app-id", "tid": contosoID}, "app1/app-id", 1},
		{"another application", v1, map[string]any{"appid": "x", "tid": contosoID}, "", 0},
		{"another tenant's ID", v2, map[string]any{"oid": "alice-oid", "tid": other}, "", 0},
		{"no tenant's ID", v2, map[string]any{"oid": "alice-oid"}, "", 0},
		{"another tenant that is trusted", "https://login.microsoftonline.com/" + other + "/v2.0", map[string]any{"oid": "alice-oid", "tid": other}, "", 0},
		{"a tenant that isn't trusted", "https://login.microsoftonline.com/" + fabrikamID + "/v2.0", map[string]any{"oid": "alice-oid", "tid": fabrikamID}, "", 0},
		{"a mail address that nobody has checked", v2, map[string]any{"tid": contosoID, "email": "root@contoso.example"}, "", 0},
		{"a mail address that was checked", v2, map[string]any{"tid": contosoID, "email": "root@contoso.example", "email_verified": true}, "mail/root@contoso.example", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := map[string]any{"iss": tc.issuer, "aud": "api://postern", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()}
			maps.Copy(c, tc.claims)
			got, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, c)})
			if got.Name != tc.want || (err == nil) != (tc.want != "") || len(got.Grants) != tc.roles {
				t.Errorf("%+v, %v, want %q with %d roles", got, err, tc.want, tc.roles)
			}
			if err != nil && !errors.Is(err, ErrUnauthenticated) {
				t.Error(err)
			}
		})
	}
}
