package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/postern-link/postern/control"
)

const (
	// refusalTime is how long every refusal takes, from the first look at the credential: longer than any
	// of the checks, so that the time doesn't tell which one failed. Success needs no such care.
	refusalTime = 50 * time.Millisecond
	// bearerBytes bounds a bearer token. Entra ID's grow with the groups of a user, up to some 10 KiB.
	bearerBytes = 16 << 10
)

var (
	errNone      = errors.New("no credential")
	errMalformed = errors.New("malformed token")
	errNobody    = errors.New("it speaks for no identity of the file")
)

// Authenticate returns who shows a credential. The error is [ErrUnauthenticated], or wraps
// [ErrUnavailable] where an issuer can't be reached: after at most 5 seconds the first time, at once
// while it stays away.
func (d *Directory) Authenticate(ctx context.Context, c Credential) (control.Caller, error) {
	start := time.Now()
	method, caller, err := d.signIn(ctx, c)
	switch {
	case err == nil:
		caller.From = c.From
		d.metrics.signIn(method, "accepted")
		return caller, nil
	case errors.Is(err, ErrUnavailable):
		d.metrics.signIn(method, "unavailable")
		d.tell(slog.LevelWarn, "a sign-in can't be judged", "method", method, "from", c.From, "err", clip(err.Error()))
		return control.Caller{}, ErrUnavailable
	}
	d.refuse(ctx, start, method, c.From, err)
	return control.Caller{}, ErrUnauthenticated
}

// refuse counts and logs a refusal, and returns when a refusal is due.
func (d *Directory) refuse(ctx context.Context, start time.Time, method, from string, why error) {
	d.metrics.signIn(method, "refused")
	if !errors.Is(why, errNone) {
		d.tell(slog.LevelInfo, "sign-in refused", "method", method, "from", from, "why", clip(why.Error()))
	}
	due := time.NewTimer(refusalTime - time.Since(start))
	defer due.Stop()
	select {
	case <-due.C:
	case <-ctx.Done():
	}
}

// tell logs what became of a sign-in, unless the minute has had many lines already. Those without one are
// counted in the metrics, and in the log when the next minute has its first.
func (d *Directory) tell(level slog.Level, what string, args ...any) {
	ok, silent := d.refused.admit(d.now())
	if silent > 0 {
		d.log.Warn("more sign-ins were refused or couldn't be judged, without a line of their own", "count", silent)
	}
	if ok {
		d.log.Log(context.Background(), level, what, args...)
	}
}

// signIn judges a credential. A bearer token that isn't good is not made good by a certificate beside it.
func (d *Directory) signIn(ctx context.Context, c Credential) (method string, caller control.Caller, err error) {
	switch {
	case strings.HasPrefix(c.Bearer, tokenPrefix):
		id, err := d.world.Load().token(c.Bearer, d.now())
		if err != nil {
			return "token", caller, err
		}
		return "token", id.caller(id.name, id.grants), nil
	case c.Bearer != "":
		return d.signed(ctx, c.Bearer)
	case len(c.Chains) > 0:
		caller, ok := merge(d.world.Load().showsOne(c.Chains, d.now()))
		if !ok {
			return "certificate", caller, errNobody
		}
		return "certificate", caller, nil
	}
	return "none", caller, errNone
}

// token returns the identity of a static token. The token is found by a part of its digest and compared by
// the whole, in constant time: what a caller could learn from the time is about digests.
func (w *world) token(bearer string, now time.Time) (*identity, error) {
	if !wellFormed(bearer, tokenPrefix) {
		return nil, errMalformed
	}
	sum := digest(sha256.Sum256([]byte(bearer)))
	h := w.tokens[sum.id()] // without an identity where there is none
	if subtle.ConstantTimeCompare(sum[:], h.digest[:]) != 1 || h.identity == nil {
		return nil, errNobody
	}
	if h.expired(now) {
		return nil, fmt.Errorf("the token of %q has expired", h.identity.name)
	}
	return h.identity, nil
}

// signed judges a JWT: one of ours, or one of an issuer in the file.
func (d *Directory) signed(ctx context.Context, raw string) (method string, caller control.Caller, err error) {
	method = "oidc"
	if len(raw) > bearerBytes {
		return method, caller, errMalformed
	}
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return method, caller, errMalformed
	}
	kid := jws.Signatures[0].Header.KeyID
	if strings.HasPrefix(kid, keyPrefix) {
		id, err := d.ownToken(d.world.Load(), jws, d.now())
		if err != nil {
			return "issued", caller, err
		}
		return "issued", id.caller(id.name, id.grants), nil
	}
	var says struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &says) != nil {
		return method, caller, errMalformed
	}
	t := d.world.Load().issuers[says.Issuer]
	if t == nil {
		return method, caller, fmt.Errorf("the file has no issuer %q", clip(says.Issuer))
	}
	c, err := t.verify(ctx, raw, kid)
	if err != nil {
		return method, caller, err
	}
	// Fetching keys takes time: the file may be another one now, and the issuer not in it.
	w := d.world.Load()
	if t = w.issuers[says.Issuer]; t == nil {
		return method, caller, errors.New("its issuer has left the file")
	}
	if !t.takes(c) {
		return method, caller, fmt.Errorf("the token is for %q, or of another tenant", clip(fmt.Sprint(c["aud"])))
	}
	caller, ok := merge(w.speaksFor(t, c))
	if !ok {
		return method, caller, fmt.Errorf("%w: %q of %s", errNobody, c.person(), t.url)
	}
	return method, caller, nil
}
