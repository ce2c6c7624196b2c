package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/internal/wholefile"
)

// Holder says for whom a credential is made. An identity that isn't in the file is added to it.
type Holder struct {
	Identity string
	// Tenant is what the file calls it. "": that of the identity, which must be there.
	Tenant string
	// Roles are those of a new identity, with "*" for all subscriptions of its tenant. An identity that is
	// there keeps its own, and none may be given.
	Roles []control.Grant
	// Expires is the end of the credential. The zero time: never.
	Expires time.Time
}

// Created is a new credential. The secret is nowhere else and can't be had again.
type Created struct {
	ID       string // names it in lists and for [Revoke]
	ClientID string // "" for a token
	Secret   string
}

// String shows no secret.
func (c Created) String() string { return "credential " + c.ID }

// GoString shows no secret.
func (c Created) GoString() string { return c.String() }

// Init writes a new identities file that holds the operator's tenant with one subscription and nobody who
// could sign in. A file that is there is left alone: the error is fs.ErrExist.
func Init(path string) error {
	text, err := document{Tenants: []tenantText{{Name: "operator", ID: newGUID(), Operator: true,
		Subscriptions: []subscriptionText{{ID: newGUID(), Name: "operator"}}}}}.text()
	if err != nil {
		return err
	}
	return wholefile.Create(path, 0o600, wholefile.Text(text))
}

// CreateToken makes a static token and writes its digest into the file.
func CreateToken(ctx context.Context, path string, h Holder) (Created, error) {
	secret := newSecret(tokenPrefix)
	text, c := h.keep(secret)
	err := edit(ctx, path, func(d *document) error {
		id, err := d.holder(h)
		if err != nil {
			return err
		}
		id.Tokens = append(id.Tokens, text)
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return c, nil
}

// CreateClient makes a secret for the client of an identity, and the client if it has none, and writes the
// digest into the file. Secrets that are there stay good, so that one can follow another.
func CreateClient(ctx context.Context, path string, h Holder) (Created, error) {
	secret := newSecret(secretPrefix)
	text, c := h.keep(secret)
	err := edit(ctx, path, func(d *document) error {
		id, err := d.holder(h)
		if err != nil {
			return err
		}
		if id.Client == nil {
			id.Client = &clientText{ID: newGUID()}
		}
		id.Client.Secrets = append(id.Client.Secrets, text)
		c.ClientID = id.Client.ID
		return nil
	})
	if err != nil {
		return Created{}, err
	}
	return c, nil
}

// keep returns what the file has of a secret.
func (h Holder) keep(secret string) (secretText, Created) {
	sum := digest(sha256.Sum256([]byte(secret)))
	text := secretText{SHA256: hex.EncodeToString(sum[:]), Created: time.Now().UTC().Format(time.RFC3339)}
	if !h.Expires.IsZero() {
		text.Expires = h.Expires.UTC().Format(time.RFC3339)
	}
	return text, Created{ID: sum.id(), Secret: secret}
}

// holder returns the identity that a credential is for, which may be a new one.
func (d *document) holder(h Holder) (*identityText, error) {
	if i := d.identity(h.Identity); i >= 0 {
		id := &d.Identities[i]
		switch {
		case h.Tenant != "" && !strings.EqualFold(h.Tenant, id.Tenant):
			return nil, fmt.Errorf("identity %q is of tenant %q", id.Name, id.Tenant)
		case len(h.Roles) > 0:
			return nil, fmt.Errorf("identity %q is there and has its roles: they are changed in the file", id.Name)
		}
		return id, nil
	}
	if h.Tenant == "" {
		return nil, fmt.Errorf("identity %q: %w; a new one needs a tenant", clip(h.Identity), ErrNotFound)
	}
	id := identityText{Name: h.Identity, Tenant: h.Tenant}
	for _, g := range h.Roles {
		id.Roles = append(id.Roles, roleText{Subscription: g.Subscription, Role: string(g.Role)})
	}
	d.Identities = append(d.Identities, id)
	return &d.Identities[len(d.Identities)-1], nil
}

// identity returns the index of an identity, or -1.
func (d *document) identity(name string) int {
	return slices.IndexFunc(d.Identities, func(id identityText) bool { return strings.EqualFold(id.Name, name) })
}

// Revoke takes a token or a client's secret out of the file by its ID; with the ID "" it takes out the whole
// identity. Without its last way to sign in an identity goes too: gone says so. Tokens that were issued for a
// secret end with it, on each node as soon as it has read the file.
func Revoke(ctx context.Context, path, identity, id string) (gone bool, err error) {
	err = edit(ctx, path, func(d *document) error {
		i := d.identity(identity)
		if i < 0 {
			return fmt.Errorf("identity %q: %w", clip(identity), ErrNotFound)
		}
		at := &d.Identities[i]
		if id != "" && !at.drop(id) {
			return fmt.Errorf("identity %q, credential %q: %w", at.Name, clip(id), ErrNotFound)
		}
		gone = id == "" || len(at.Tokens)+len(at.Certificates)+len(at.OIDC) == 0 && at.Client == nil
		if gone {
			d.Identities = slices.Delete(d.Identities, i, i+1)
		}
		return nil
	})
	return gone && err == nil, err
}

// drop takes out the secrets with an ID and reports whether there was one.
func (t *identityText) drop(id string) bool {
	before := t.secrets()
	is := func(s secretText) bool { return idOf(s) == strings.ToLower(id) }
	t.Tokens = slices.DeleteFunc(t.Tokens, is)
	if t.Client != nil {
		if t.Client.Secrets = slices.DeleteFunc(t.Client.Secrets, is); len(t.Client.Secrets) == 0 {
			t.Client = nil
		}
	}
	return t.secrets() < before
}

func (t *identityText) secrets() int {
	n := len(t.Tokens)
	if t.Client != nil {
		n += len(t.Client.Secrets)
	}
	return n
}

// idOf returns the ID of a secret in a document that was checked.
func idOf(s secretText) string { return strings.ToLower(s.SHA256[:16]) }

// Listed is one way to sign in.
type Listed struct {
	Identity, Tenant string
	Roles            []control.Grant
	// Method is "token", "client", "certificate" or "oidc".
	Method string
	// ID names a token or a client's secret for [Revoke]. For the other methods it describes who is meant.
	ID       string
	ClientID string    // of a client
	Created  time.Time // zero: not known
	Expires  time.Time // zero: never
}

// List returns every way to sign in that a file has, in its order. It holds no secrets.
func List(path string) ([]Listed, error) {
	text, err := readBounded(path, fileBytes)
	if err != nil {
		return nil, err
	}
	doc, err := check(path, text)
	if err != nil {
		return nil, err
	}
	var all []Listed
	for _, t := range doc.Identities {
		all = append(all, t.list()...)
	}
	return all, nil
}

func (t identityText) list() []Listed {
	of := Listed{Identity: t.Name, Tenant: t.Tenant}
	for _, r := range t.Roles {
		of.Roles = append(of.Roles, control.Grant{Subscription: r.Subscription, Role: control.Role(r.Role)})
	}
	var all []Listed
	add := func(method, id, client string, s secretText) {
		l := of
		l.Method, l.ID, l.ClientID = method, id, client
		l.Created, _ = time.Parse(time.RFC3339, s.Created) // "" is the zero time; others were checked
		l.Expires, _ = time.Parse(time.RFC3339, s.Expires)
		all = append(all, l)
	}
	for _, s := range t.Tokens {
		add("token", idOf(s), "", s)
	}
	if t.Client != nil {
		for _, s := range t.Client.Secrets {
			add("client", idOf(s), t.Client.ID, s)
		}
	}
	for _, c := range t.Certificates {
		add("certificate", strings.TrimSpace(strings.Join([]string{c.SHA256, c.Authority, c.Subject, c.SAN}, " ")), "", secretText{})
	}
	for _, o := range t.OIDC {
		id := o.Issuer
		if o.Subject != "" {
			id += " sub=" + o.Subject
		}
		for _, name := range slices.Sorted(maps.Keys(o.Claims)) {
			id += " " + name + "=" + o.Claims[name]
		}
		add("oidc", id, "", secretText{})
	}
	return all
}

// newGUID returns a random GUID (RFC 9562, section 5.4).
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return formatGUID(b, 4)
}
