package identity

// document is the identities file as it is written. All values are strings, so that each is judged in
// one place, with its line, and can be written back as it was.
type document struct {
	Tenants     []tenantText    `json:"tenants"`
	Authorities []authorityText `json:"authorities,omitempty"`
	Issuers     []issuerText    `json:"issuers,omitempty"`
	Identities  []identityText  `json:"identities,omitempty"`
}

type tenantText struct {
	Name          string             `json:"name"`
	ID            string             `json:"id"`
	Operator      bool               `json:"operator,omitempty"`
	Subscriptions []subscriptionText `json:"subscriptions,omitempty"`
	Domains       []string           `json:"domains,omitempty"`
	Networks      []string           `json:"networks,omitempty"`
	Targets       []string           `json:"targets,omitempty"`
}

type subscriptionText struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// authorityText is a certificate authority that client certificates come from.
type authorityText struct {
	Name string `json:"name"`
	File string `json:"file"`
}

type issuerText struct {
	URL       string   `json:"url"`
	Audiences []string `json:"audiences"`
	Tenants   []string `json:"tenants,omitempty"`
	CA        string   `json:"ca,omitempty"`
}

type identityText struct {
	Name         string            `json:"name"`
	Tenant       string            `json:"tenant"`
	Roles        []roleText        `json:"roles,omitempty"`
	Tokens       []secretText      `json:"tokens,omitempty"`
	Client       *clientText       `json:"client,omitempty"`
	Certificates []certificateText `json:"certificates,omitempty"`
	OIDC         []oidcText        `json:"oidc,omitempty"`
}

type roleText struct {
	Subscription string `json:"subscription"`
	Role         string `json:"role"`
}

// secretText is all that is kept of a token or a client's secret. It has 256 random bits, so that nobody
// finds it by trying: one round of SHA-256 keeps it as well as a slow hash would, and a caller without a
// credential can't make the node work hard. Which is why only secrets that were made here are taken, never
// a password of somebody's choice.
type secretText struct {
	SHA256  string `json:"sha256"`
	Created string `json:"created,omitempty"`
	Expires string `json:"expires,omitempty"`
}

type clientText struct {
	ID      string       `json:"id"`
	Secrets []secretText `json:"secrets"`
}

type certificateText struct {
	SHA256    string `json:"sha256,omitempty"`
	Authority string `json:"authority,omitempty"`
	Subject   string `json:"subject,omitempty"`
	SAN       string `json:"san,omitempty"`
}

type oidcText struct {
	Issuer  string            `json:"issuer"`
	Subject string            `json:"subject,omitempty"`
	Claims  map[string]string `json:"claims,omitempty"`
}
