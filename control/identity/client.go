package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// tokenLife is how long a token of ours is good for, unless its secret ends earlier.
const tokenLife = time.Hour

// issued are the claims of a token of ours. Clients read oid, tid and appid, as Entra ID's tokens have
// them; az and Terraform look at no signature.
type issued struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	Issued   int64  `json:"iat"`
	Begins   int64  `json:"nbf"`
	ID       string `json:"jti"`
	Object   string `json:"oid"`
	Tenant   string `json:"tid"`
	App      string `json:"appid"`
	Kind     string `json:"idtyp"`
	Version  string `json:"ver"`
	// Secret is the public part of the secret's digest: the token ends with the secret it was got with.
	Secret string `json:"pcs"`
}

// IssueToken exchanges a client's ID and secret for a token that [Directory.Authenticate] takes (RFC 6749,
// section 4.4). It says for how many seconds the token is good. audience is what the client asked for, such
// as "https://host/", and issuerURL is what the token says it is from. The error is [ErrUnauthenticated],
// for an unknown client as for a wrong secret and in the same time, or wraps [ErrUnavailable] where the key
// can't be had.
func (d *Directory) IssueToken(ctx context.Context, clientID, secret, audience, issuerURL string) (string, int, error) {
	start := time.Now()
	now := d.now()
	id, k, why := d.world.Load().client(clientID, secret, now)
	if why == nil && (len(audience) > maxURL || len(issuerURL) > maxURL) {
		why = errors.New("audience or issuer too long")
	}
	if why != nil {
		if !guidForm.MatchString(strings.ToLower(clientID)) {
			clientID = "(no GUID)" // secrets are put into the wrong field
		}
		d.refuse(ctx, start, "client", "", fmt.Errorf("client %s: %w", clientID, why))
		return "", 0, ErrUnauthenticated
	}
	key, err := d.key.current(true)
	if err != nil {
		d.log.Error("no key to sign tokens of clients with", "err", err)
		d.metrics.signIn("client", "unavailable")
		return "", 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ends := now.Add(tokenLife)
	if !k.expires.IsZero() && k.expires.Before(ends) {
		ends = k.expires
	}
	object := objectID(id.clientID)
	token, err := key.sign(issued{Issuer: issuerURL, Subject: object, Audience: audience, Expires: ends.Unix(), Issued: now.Unix(),
		Begins: now.Unix(), ID: newSecret(""), Object: object, Tenant: id.tenant.ID, App: id.clientID, Kind: "app", Version: "1.0",
		Secret: k.digest.id()})
	if err != nil {
		return "", 0, err
	}
	d.metrics.signIn("client", "accepted")
	return token, int(ends.Sub(now) / time.Second), nil
}

// maxURL bounds the audience and the issuer that go into a token.
const maxURL = 2048

// client returns the identity of a client and the secret of it that was shown. Every secret of the client
// is compared, a made-up one if there is no such client.
func (w *world) client(clientID, secret string, now time.Time) (*identity, kept, error) {
	sum := sha256.Sum256([]byte(secret))
	id := w.clients[strings.ToLower(clientID)]
	secrets := []kept{{}}
	if id != nil {
		secrets = id.secrets
	}
	var found *kept
	for i := range secrets {
		if subtle.ConstantTimeCompare(sum[:], secrets[i].digest[:]) == 1 {
			found = &secrets[i]
		}
	}
	switch {
	case id == nil:
		return nil, kept{}, errors.New("there is no such client")
	case found == nil || !wellFormed(secret, secretPrefix):
		return nil, kept{}, errors.New("wrong secret")
	case found.expired(now):
		return nil, kept{}, errors.New("the secret has expired")
	}
	return id, *found, nil
}

// objectID makes the GUID of a client's service principal out of that of the client: the same each time,
// and another one, as in Entra ID.
func objectID(clientID string) string {
	sum := sha256.Sum256([]byte("postern service principal " + clientID))
	return formatGUID([16]byte(sum[:]), 8) // RFC 9562, section 5.8: a version of one's own
}

// sign returns the token with these claims (RFC 7519, ES256).
func (k *signingKey) sign(c issued) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.kid}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// ownToken returns the identity that a token of ours speaks for, as the file has it now: the client, and
// the secret that it was got with, must still be there.
func (d *Directory) ownToken(w *world, jws *jose.JSONWebSignature, now time.Time) (*identity, error) {
	key, err := d.key.current(false)
	if err != nil {
		return nil, fmt.Errorf("no key to check it with: %w", err)
	}
	head := jws.Signatures[0].Header
	if head.KeyID != key.kid || head.Algorithm != string(jose.ES256) {
		return nil, errors.New("signed with an older key of ours")
	}
	payload, err := jws.Verify(&key.private.PublicKey)
	if err != nil {
		return nil, err
	}
	var c issued
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, err
	}
	if at := now.Add(-skew); !at.Before(time.Unix(c.Expires, 0)) || now.Add(skew).Before(time.Unix(c.Begins, 0)) {
		return nil, errors.New("the token is past its time, or not yet in it")
	}
	id := w.clients[c.App]
	if id == nil || id.tenant.ID != c.Tenant {
		return nil, errors.New("its client is no longer there")
	}
	for _, k := range id.secrets {
		if k.digest.id() == c.Secret && !k.expired(now) {
			return id, nil
		}
	}
	return nil, errors.New("the secret that it was got with is no longer good")
}
