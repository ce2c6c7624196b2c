package identity

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"
)

// skew is how far the clocks of an issuer and this machine may be apart.
const skew = time.Minute

// algorithms are those that tokens may be signed with: public keys only, never "none", never a secret
// shared with the issuer.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// trust is what an entry of the file says about an issuer.
type trust struct {
	*issuer
	audiences []string
	tid       string // the tenant that its tokens must be of, for Entra ID; "": isn't looked at
}

// rule says which tokens of an issuer speak for an identity.
type rule struct {
	issuer  string
	subject string            // "": any
	claims  map[string]string // each must be there, alone or in a list
}

// claims are those of a token whose signature, issuer and times are good.
type claims map[string]any

// verify returns the claims of a token of the issuer, whoever it is for. The error wraps [ErrUnavailable] where it can't be told whether
// the token is good.
func (t *trust) verify(ctx context.Context, raw, kid string) (claims, error) {
	keys, err := t.find(ctx, kid)
	if err != nil {
		return nil, err
	}
	config := &oidc.Config{SkipClientIDCheck: true, Now: func() time.Time { return t.now().Add(-skew) }}
	for _, a := range algorithms {
		config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, string(a))
	}
	token, err := oidc.NewVerifier(t.url, keys, config).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	c := claims{}
	if err := token.Claims(&c); err != nil {
		return nil, err
	}
	return c, nil
}

// takes reports whether a token is for us: of an audience that the file names, and for Entra ID of the
// issuer's tenant.
func (t *trust) takes(c claims) bool {
	return (t.tid == "" || c.text("tid") == t.tid) &&
		slices.ContainsFunc(t.audiences, func(a string) bool {
			list, _ := c["aud"].([]any)
			return c["aud"] == a || slices.Contains(list, any(a))
		})
}

// text returns a claim that is a string, or "".
func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
}

// holds reports whether a claim is want, or a list with want in it.
func (c claims) holds(name, want string) bool {
	switch v := c[name].(type) {
	case string:
		if name == "email" && c["email_verified"] != true {
			return false // whoever runs an account at the issuer may have written it there
		}
		return v == want
	case bool:
		return fmt.Sprint(v) == want
	case []any:
		return slices.Contains(v, any(want))
	}
	return false
}

// fits reports whether a token of the rule's issuer speaks for the rule's identity. An application of
// Entra ID is "appid" in tokens of version 1 and "azp" in those of version 2: each stands for both.
func (r rule) fits(c claims, entra bool) bool {
	if r.subject != "" && c.text("sub") != r.subject {
		return false
	}
	for name, want := range r.claims {
		other := name
		if entra && name == "appid" {
			other = "azp"
		} else if entra && name == "azp" {
			other = "appid"
		}
		if !c.holds(name, want) && !c.holds(other, want) {
			return false
		}
	}
	return r.subject != "" || len(r.claims) > 0
}

// one reports whether a rule is about one user and not about all of a group: its identity is a name then.
func (r rule) one() bool { return r.subject != "" || r.claims["oid"] != "" }

// speaksFor returns the identities that a token of an issuer speaks for, in the order of the file.
func (w *world) speaksFor(t *trust, c claims) []match {
	var all []match
	for _, id := range w.identities {
		for _, r := range id.rules {
			if r.issuer != t.url || !r.fits(c, t.tid != "") {
				continue
			}
			name := id.name
			if !r.one() {
				name += "/" + c.person()
			}
			all = append(all, match{identity: id, name: name})
			break
		}
	}
	return all
}

// person returns what people call the user or application of a token. It is for the audit only, behind
// the name of an identity: users can choose some of these themselves.
func (c claims) person() string {
	for _, name := range []string{"upn", "preferred_username", "email", "appid", "azp", "sub"} {
		s := strings.Map(func(r rune) rune {
			if r == '/' || !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, c.text(name))
		if s = strings.TrimSpace(s); s != "" {
			return clip(s)
		}
	}
	return "unknown"
}

// entraHosts are where Entra ID issues tokens: version 2 and version 1 of its global cloud, and its
// national clouds.
var entraHosts = []string{"login.microsoftonline.com", "sts.windows.net", "login.microsoftonline.us",
	"login.partner.microsoftonline.cn", "sts.chinacloudapi.cn"}

func isEntra(host string) bool { return slices.Contains(entraHosts, strings.ToLower(host)) }

// entraTenant returns the GUID of the tenant that an issuer of Entra ID is for: the first segment of the
// path in both versions. "": it is another issuer, or one for all tenants.
func entraTenant(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || !isEntra(u.Hostname()) {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if id := strings.ToLower(first); guidForm.MatchString(id) {
		return id
	}
	return ""
}
