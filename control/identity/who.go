package identity

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-link/postern/control"
)

// identityForm has no '/', which stands between an identity and a person in the audit.
var identityForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func (r *reader) identities() error {
	for i, text := range r.doc.Identities {
		id, err := r.identity(fmt.Sprintf("identities[%d]", i), text)
		if err != nil {
			return err
		}
		r.world.identities = append(r.world.identities, id)
	}
	return nil
}

func (r *reader) identity(path string, text identityText) (*identity, error) {
	if !identityForm.MatchString(text.Name) {
		return nil, r.fail(path+".name", "a name has 1 to 64 letters, digits, '.', '_', '@' and '-', a letter or digit first")
	}
	folded := strings.ToLower(text.Name)
	if r.names[folded] {
		return nil, r.fail(path+".name", "there are two identities %q", text.Name)
	}
	r.names[folded] = true
	tenant, ok := r.world.tenantOf(text.Tenant)
	if !ok {
		return nil, r.fail(path+".tenant", "there is no tenant %q", clip(text.Tenant))
	}
	id := &identity{name: text.Name, tenant: tenant}
	for j, role := range text.Roles {
		grants, err := r.role(fmt.Sprintf("%s.roles[%d]", path, j), tenant, role)
		if err != nil {
			return nil, err
		}
		id.grants = append(id.grants, grants...)
	}
	for _, step := range []func(string, *identity, identityText) error{r.tokens, r.client, r.certificates, r.rules} {
		if err := step(path, id, text); err != nil {
			return nil, err
		}
	}
	if len(text.Tokens)+len(text.Certificates)+len(text.OIDC) == 0 && text.Client == nil {
		return nil, r.fail(path, "it has no way to sign in: tokens, client, certificates or oidc")
	}
	return id, nil
}

// role returns the grants of one role. "*" are the subscriptions of the identity's own tenant; one of
// another tenant must be named.
func (r *reader) role(path string, tenant control.Tenant, text roleText) ([]control.Grant, error) {
	role := control.Role(text.Role)
	if role.Rights() == 0 {
		return nil, r.fail(path+".role", "%q is none of %s, %s, %s, %s and %s", clip(text.Role),
			control.Owner, control.Consumer, control.Provider, control.Approver, control.Reader)
	}
	if text.Subscription == "*" {
		var all []control.Grant
		for _, s := range tenant.Subscriptions {
			all = append(all, control.Grant{Subscription: s.ID, Role: role})
		}
		return all, nil
	}
	sub := strings.ToLower(text.Subscription)
	if _, ok := r.world.owners[sub]; !ok {
		return nil, r.fail(path+".subscription", "there is no subscription %q; \"*\" are those of the tenant", clip(sub))
	}
	return []control.Grant{{Subscription: sub, Role: role}}, nil
}

func (r *reader) tokens(path string, id *identity, text identityText) error {
	all, err := r.secrets(path+".tokens", text.Tokens)
	if err != nil {
		return err
	}
	for i, k := range all {
		if _, taken := r.world.tokens[k.digest.id()]; taken {
			return r.fail(fmt.Sprintf("%s.tokens[%d].sha256", path, i), "another token has the same")
		}
		r.world.tokens[k.digest.id()] = tokenOf{identity: id, kept: k}
	}
	return nil
}

func (r *reader) client(path string, id *identity, text identityText) (err error) {
	if text.Client == nil {
		return nil
	}
	path += ".client"
	id.clientID = strings.ToLower(text.Client.ID)
	if !guidForm.MatchString(id.clientID) {
		return r.fail(path+".id", "a GUID is expected")
	}
	if other, taken := r.world.clients[id.clientID]; taken {
		return r.fail(path+".id", "%q has the same client", other.name)
	}
	r.world.clients[id.clientID] = id
	if len(text.Client.Secrets) == 0 {
		return r.fail(path+".secrets", "at least one is needed")
	}
	id.secrets, err = r.secrets(path+".secrets", text.Client.Secrets)
	return err
}

func (r *reader) rules(path string, id *identity, text identityText) error {
	for i, o := range text.OIDC {
		at := fmt.Sprintf("%s.oidc[%d]", path, i)
		if r.world.issuers[o.Issuer] == nil {
			return r.fail(at+".issuer", "there is no issuer %q; for one with {tenantid} write the URL with the tenant's GUID", clip(o.Issuer))
		}
		if o.Subject == "" && len(o.Claims) == 0 {
			return r.fail(at, "a subject or claims are needed: without them every user of the issuer would be meant")
		}
		for name, value := range o.Claims {
			if name == "" || value == "" {
				return r.fail(at+".claims", "a claim has a name and a value")
			}
			if slices.Contains(standing, name) {
				return r.fail(at+".claims", "%q says nothing about who it is", name)
			}
		}
		id.rules = append(id.rules, rule{issuer: o.Issuer, subject: o.Subject, claims: o.Claims})
	}
	return nil
}

// standing are claims that every token of an issuer has alike: on them alone no one can be told from another.
var standing = []string{"iss", "aud", "exp", "iat", "nbf", "sub", "tid", "ver"}

// placeholder stands in an issuer's URL for the tenants that are trusted, as in Entra ID's own metadata.
const placeholder = "{tenantid}"

func (r *reader) issuers() error {
	for i, text := range r.doc.Issuers {
		path := fmt.Sprintf("issuers[%d]", i)
		urls, err := r.expand(path, text)
		if err != nil {
			return err
		}
		if len(text.Audiences) == 0 || slices.Contains(text.Audiences, "") {
			return r.fail(path+".audiences", "at least one audience is needed: else a token for another program would do")
		}
		var ca []byte
		if text.CA != "" {
			if ca, err = r.file(r.path(text.CA)); err != nil {
				return r.fail(path+".ca", "%v", err)
			}
		}
		for _, u := range urls {
			if r.world.issuers[u] != nil {
				return r.fail(path+".url", "the issuer %q stands here twice", u)
			}
			source, err := r.source(u, ca)
			if err != nil {
				return r.fail(path+".ca", "%v", err)
			}
			r.world.issuers[u] = &trust{issuer: source, audiences: text.Audiences, tid: entraTenant(u)}
		}
	}
	return nil
}

// expand returns the issuers that an entry means: one, or one for each tenant.
func (r *reader) expand(path string, text issuerText) ([]string, error) {
	u, err := url.Parse(text.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(text.URL) > 1024 {
		return nil, r.fail(path+".url", "an https URL without user, query and fragment is expected")
	}
	if !strings.Contains(text.URL, placeholder) {
		switch {
		case len(text.Tenants) > 0:
			return nil, r.fail(path+".tenants", "they take the place of %s in the URL, which has none", placeholder)
		case isEntra(u.Hostname()) && entraTenant(text.URL) == "":
			return nil, r.fail(path+".url", "this endpoint of Entra ID signs for every tenant: write the tenant's GUID, or %s and the tenants that are trusted", placeholder)
		}
		return []string{text.URL}, nil
	}
	if len(text.Tenants) == 0 {
		return nil, r.fail(path+".tenants", "%s in the URL needs the tenants that are trusted", placeholder)
	}
	var all []string
	for i, t := range text.Tenants {
		id := strings.ToLower(t)
		if !guidForm.MatchString(id) {
			return nil, r.fail(fmt.Sprintf("%s.tenants[%d]", path, i), "a GUID is expected")
		}
		all = append(all, strings.ReplaceAll(text.URL, placeholder, id))
	}
	return all, nil
}
