package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// What begins a static token and the secret of a client, so that people and scanners of source code know
// them when they see them. 43 characters of base64url follow, 256 random bits.
const (
	tokenPrefix  = "ptk_"
	secretPrefix = "pcs_"
	secretBytes  = 32
)

// newSecret returns a random secret.
func newSecret(prefix string) string {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// wellFormed reports whether s could be a secret that newSecret made.
func wellFormed(s, prefix string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || len(rest) != base64.RawURLEncoding.EncodedLen(secretBytes) {
		return false
	}
	_, err := base64.RawURLEncoding.DecodeString(rest)
	return err == nil
}

// digest is what is kept of a secret.
type digest [sha256.Size]byte

// id is the public part of a digest: it finds the digest, is shown by lists and may be logged. What it
// tells of the secret is of no use without a preimage.
func (d digest) id() string { return hex.EncodeToString(d[:8]) }

// kept is one secret of an identity, as its digest.
type kept struct {
	digest  digest
	expires time.Time // zero: never
}

// expired reports whether the secret is past its time.
func (k kept) expired(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

// formatGUID writes bytes as a GUID of a version (RFC 9562, section 4).
func formatGUID(b [16]byte, version byte) string {
	b[6], b[8] = b[6]&0x0f|version<<4, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
