package identity

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/link"
)

func TestTenants(t *testing.T) {
	d := start(t, put(t, who("")), Options{})
	want := control.Tenant{Name: "contoso", Title: "contoso", ID: contosoID,
		Subscriptions: []control.Subscription{{ID: contosoS, Name: "Contoso one"}, {ID: contosoS2, Name: "Contoso two"}},
		Domains:       []link.Name{"contoso.example"},
		Networks:      []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		Targets:       []netip.Prefix{netip.MustParsePrefix("fd00::/64")}}
	if got, ok := d.Tenant("contoso"); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("contoso is %+v, want %+v", got, want)
	}
	if got, ok := d.SubscriptionOwner(contosoS2); !ok || got.ID != contosoID {
		t.Errorf("the owner of contoso's second subscription is %+v, %v", got, ok)
	}
	if got, ok := d.Tenant(""); !ok || got.ID != operatorID || got.Title != "operator" {
		t.Errorf("the operator's tenant is %+v, %v", got, ok)
	}
	if _, ok := d.Tenant("operator"); ok {
		t.Error("the state calls the operator's tenant by a name")
	}
	if _, ok := d.SubscriptionOwner(clientID); ok {
		t.Error("a subscription that isn't there has an owner")
	}
	if got := d.Tenants(); len(got) != 3 {
		t.Errorf("%d tenants", len(got))
	}
	if d.ClientCAs() != nil {
		t.Error("a pool of authorities from nowhere")
	}
}

func TestRefusedFiles(t *testing.T) {
	sum, token := sumOf("x"), newSecret(tokenPrefix)
	ci := func(rest string) string { return who(`{"name": "ci", "tenant": "contoso", ` + rest + `}`) }
	good := `"tokens": [{"sha256": "` + sum + `"}]`
	oidc := func(issuer string) string { return who("", `"issuers": [`+issuer+`]`) }
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "line 1: the text ends too early"},
		{"cut off", "{\n\"tenants\": [\n", "line 3: tenants: the text ends too early"},
		{"not JSON", "tenants: []", "line 1: invalid character"},
		{"list", "[]", "line 1: an object is expected, a list found"},
		{"null (A14)", `{"tenants": null}`, "line 1: tenants: a list is expected, null found"},
		{"number", `{"tenants": 1e999}`, "line 1: tenants: a list is expected, a number found"},
		{"deep (A14)", `{"tenants": ` + strings.Repeat("[", 10000), "line 1: tenants[0]: an object is expected, a list found"},
		{"second value (A15)", who("") + "\n{}", "something follows the closing brace"},
		{"unknown field", "{\n\n\"tennants\": []}", `line 3: there is no field "tennants"`},
		{"other letter case", `{"Tenants": []}`, `there is no field "Tenants"`},
		{"field twice (A15)", "{\"tenants\": [],\n\"tenants\": []}", `line 2: the field "tenants" stands here twice`},
		{"claim twice", ci(`"oidc": [{"issuer": "x", "claims": {"oid": "a", "oid": "b"}}]`), `identities[0].oidc[0].claims: the field "oid" stands here twice`},
		{"invalid UTF-8 (A15)", "{\n\"tenants\": \"\xff\"}", "line 2: invalid UTF-8"},
		{"lone surrogate (A15)", `{"tenants": [{"name": "\ud800"}]}`, "tenants[0].name: a control character or half of a character"},
		{"control character", `{"tenants": [{"name": "a\u0007"}]}`, "tenants[0].name: a control character"},
		{"no tenants", `{"tenants": []}`, "line 1: tenants: at least one"},
		{"tenant's name", `{"tenants": [{"name": "a/b", "id": "` + contosoID + `"}]}`, "tenants[0].name: a name has"},
		{"tenant twice", `{"tenants": [{"name": "a", "id": "` + contosoID + `"},` + "\n" + `{"name": "A", "id": "` + fabrikamID + `"}]}`, `line 2: tenants[1].name: there are two tenants "a"`},
		{"no GUID", `{"tenants": [{"name": "a"}]}`, "line 1: tenants[0].id: a GUID is expected"},
		{"GUID of zeros", `{"tenants": [{"name": "a", "id": "00000000-0000-0000-0000-000000000000"}]}`, "tenants[0].id: the GUID of zeros"},
		{"GUID twice", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "subscriptions": [` + "\n" + `{"id": "` + contosoID + `", "name": "x"}]}]}`, "line 2: tenants[0].subscriptions[0].id: the GUID stands at tenants[0].id already"},
		{"subscription of two tenants", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "subscriptions": [{"id": "` + contosoS + `", "name": "x"}]},
			{"name": "b", "id": "` + fabrikamID + `", "subscriptions": [{"id": "` + contosoS + `", "name": "x"}]}]}`, "line 2: tenants[1].subscriptions[0].id: the GUID stands at"},
		{"subscription without name", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "subscriptions": [{"id": "` + contosoS + `"}]}]}`, "subscriptions[0].name: a name has"},
		{"two operators", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "operator": true}, {"name": "b", "id": "` + fabrikamID + `", "operator": true}]}`, "tenants[1].operator: tenants[0] is the operator's"},
		{"domain", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "domains": ["*.x"]}]}`, "tenants[0].domains[0]: "},
		{"domain of two tenants (A09)", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "domains": ["x.example"]}, {"name": "b", "id": "` + fabrikamID + `", "domains": ["X.example."]}]}`, "tenants[1].domains[0]: the domain"},
		{"prefix", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "networks": ["10.0.0.1"]}]}`, "tenants[0].networks[0]: "},
		{"prefix with bits behind it", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "targets": ["10.0.0.1/8"]}]}`, "tenants[0].targets[0]: 10.0.0.1/8 has bits behind"},
		{"mapped prefix", `{"tenants": [{"name": "a", "id": "` + contosoID + `", "targets": ["::ffff:10.0.0.0/104"]}]}`, "tenants[0].targets[0]: "},
		{"identity's name", who(`{"name": "a/b"}`), "identities[0].name: a name has"},
		{"identity twice", who(`{"name": "a", "tenant": "contoso", ` + good + `}, {"name": "A"}`), "identities[1].name: there are two"},
		{"no tenant", who(`{"name": "a"}`), "identities[0].tenant: there is no tenant"},
		{"no way in", ci(`"roles": []`), "identities[0]: it has no way to sign in"},
		{"no role", ci(`"roles": [{"subscription": "*", "role": "admin"}]`), `identities[0].roles[0].role: "admin" is none of owner,`},
		{"no subscription", ci(`"roles": [{"subscription": "", "role": "owner"}]`), "identities[0].roles[0].subscription: there is no"},
		{"subscription that isn't there", ci(`"roles": [{"subscription": "` + clientID + `", "role": "owner"}]`), "identities[0].roles[0].subscription: there is no"},
		{"token in clear (C16)", ci(`"tokens": [{"sha256": "` + token + `"}]`), "identities[0].tokens[0].sha256: a SHA-256 is expected"},
		{"token as a key (C16)", ci(`"` + token + `": ""`), `there is no field "(hidden)"`},
		{"token as a name (C16)", ci(`"roles": [{"subscription": "` + token + `", "role": "owner"}]`), "(hidden)"},
		{"long digest", ci(`"tokens": [{"sha256": "` + sum + `00"}]`), "identities[0].tokens[0].sha256: a SHA-256"},
		{"token twice", ci(`"tokens": [{"sha256": "` + sum + `"}, {"sha256": "` + sum + `"}]`), "identities[0].tokens[1].sha256: another token"},
		{"time", ci(`"tokens": [{"sha256": "` + sum + `", "expires": "tomorrow"}]`), "identities[0].tokens[0].expires: a time"},
		{"client's ID", ci(`"client": {"id": "ci", "secrets": []}`), "identities[0].client.id: a GUID"},
		{"client without secret", ci(`"client": {"id": "` + clientID + `", "secrets": []}`), "identities[0].client.secrets: at least one"},
		{"client of two", who(`{"name": "a", "tenant": "contoso", "client": {"id": "` + clientID + `", "secrets": [{"sha256": "` + sum + `"}]}},
			{"name": "b", "tenant": "contoso", "client": {"id": "` + clientID + `", "secrets": [{"sha256": "` + sum + `"}]}}`), `identities[1].client.id: "a" has the same client`},
		{"certificate without anything", ci(`"certificates": [{}]`), "identities[0].certificates[0]: sha256, subject or san"},
		{"subject without authority", ci(`"certificates": [{"subject": "CN=ci"}]`), "identities[0].certificates[0].authority: it is needed"},
		{"authority that isn't there", ci(`"certificates": [{"authority": "corp", "subject": "CN=ci"}]`), `certificates[0].authority: there is no authority "corp"`},
		{"digest and subject", ci(`"certificates": [{"sha256": "` + sum + `", "subject": "CN=ci"}]`), "subject and san don't stand beside"},
		{"authority without file", who("", `"authorities": [{"name": "corp", "file": "none.pem"}]`), "authorities[0].file: "},
		{"issuer over http", oidc(`{"url": "http://i.example", "audiences": ["a"]}`), "issuers[0].url: an https URL"},
		{"issuer without audience", oidc(`{"url": "https://i.example", "audiences": []}`), "issuers[0].audiences: at least one"},
		{"issuer twice", oidc(`{"url": "https://i.example", "audiences": ["a"]}, {"url": "https://i.example", "audiences": ["a"]}`), "issuers[1].url: the issuer"},
		{"tenants without placeholder", oidc(`{"url": "https://i.example", "audiences": ["a"], "tenants": ["` + contosoID + `"]}`), "issuers[0].tenants: they take"},
		{"Entra ID of all tenants", oidc(`{"url": "https://login.microsoftonline.com/common/v2.0", "audiences": ["a"]}`), "issuers[0].url: this endpoint of Entra ID signs for every tenant"},
		{"Entra ID with a template and no tenants", oidc(`{"url": "https://login.microsoftonline.com/{tenantid}/v2.0", "audiences": ["a"]}`), "issuers[0].tenants: {tenantid} in the URL needs the tenants"},
		{"CA file that isn't there", oidc(`{"url": "https://i.example", "audiences": ["a"], "ca": "none.pem"}`), "issuers[0].ca: "},
		{"rule of no issuer", ci(`"oidc": [{"issuer": "https://i.example", "subject": "a"}]`), "identities[0].oidc[0].issuer: there is no issuer"},
		{"rule for everyone", who(`{"name": "ci", "tenant": "contoso", "oidc": [{"issuer": "https://i.example"}]}`, `"issuers": [{"url": "https://i.example", "audiences": ["a"]}]`), "identities[0].oidc[0]: a subject or claims are needed"},
		{"rule for a claim of all", who(`{"name": "ci", "tenant": "contoso", "oidc": [{"issuer": "https://i.example", "claims": {"aud": "a"}}]}`, `"issuers": [{"url": "https://i.example", "audiences": ["a"]}]`), `identities[0].oidc[0].claims: "aud" says nothing`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(put(t, tc.text), Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want one with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "line ") {
				t.Errorf("the error shows the secret or no line: %v", err)
			}
		})
	}
}

func TestFileIsBounded(t *testing.T) {
	path := put(t, "")
	if err := os.Truncate(path, fileBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("error %v", err)
	}
}

// FuzzFile: no text panics, what is accepted is accepted again after it was written by us, and says the same.
func FuzzFile(f *testing.F) {
	f.Add([]byte(who(`{"name": "ci", "tenant": "contoso", "roles": [{"subscription": "*", "role": "owner"}], "tokens": [{"sha256": "` + sumOf("x") + `"}]}`)))
	f.Add([]byte(who(`{"name": "ci", "tenant": "fabrikam", "client": {"id": "`+clientID+`", "secrets": [{"sha256": "`+sumOf("x")+`", "expires": "2027-01-01T00:00:00Z"}]}}`,
		`"issuers": [{"url": "https://login.microsoftonline.com/{tenantid}/v2.0", "tenants": ["`+contosoID+`"], "audiences": ["a"]}]`)))
	f.Add([]byte(`{"tenants": [{"name": "\ud800"}]}`))
	f.Add([]byte(`{"tenants": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(string(text), "file") || strings.Contains(string(text), `"ca"`) {
			return // reads files that the text names
		}
		doc, err := check("identities.json", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "identities.json: line ") {
				t.Fatalf("an error without its line: %v", err)
			}
			return
		}
		again, err := doc.text()
		if err != nil {
			t.Fatal(err)
		}
		if next, err := check("identities.json", again); err != nil || !equivalent(doc, next) {
			t.Fatalf("written and read again: %v\n%s", err, again)
		}
	})
}

// equivalent compares documents as they are written: an empty list is one that isn't there.
func equivalent(a, b document) bool {
	x, err := a.text()
	y, err2 := b.text()
	return err == nil && err2 == nil && string(x) == string(y)
}
