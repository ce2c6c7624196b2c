package bolt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/postern-link/postern/store"
)

// anchor is written with every commit, in its transaction: what the file must add up to.
type anchor struct {
	Format   int         `json:"format"`
	File     string      `json:"file"` // 128 random bits, made with the file: tells two files apart
	Revision uint64      `json:"revision"`
	Objects  store.Set   `json:"objects"`
	Audit    store.Chain `json:"audit"` // after the entry of Revision; each revision has one
}

const anchorFormat = 1

// seal returns v as JSON after the first half of the SHA-256 of that JSON, in hexadecimal.
func seal(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append(hex.AppendEncode(nil, sum[:16]), body...), nil
}

// unseal is the reverse of seal. The error wraps store.ErrDamaged.
func unseal(b []byte, v any) error {
	const n = 32
	if len(b) < n {
		return fmt.Errorf("%w: %d bytes", store.ErrDamaged, len(b))
	}
	sum := sha256.Sum256(b[n:])
	if !bytes.Equal(b[:n], hex.AppendEncode(nil, sum[:16])) {
		return fmt.Errorf("%w: the checksum is wrong", store.ErrDamaged)
	}
	if err := json.Unmarshal(b[n:], v); err != nil {
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return nil
}

func decodeAnchor(b []byte) (anchor, error) {
	var a anchor
	if err := unseal(b, &a); err != nil {
		return a, fmt.Errorf("revision anchor: %w", err)
	}
	if a.Format != anchorFormat {
		return a, fmt.Errorf("%w: format %d, this program knows %d", store.ErrForeign, a.Format, anchorFormat)
	}
	return a, nil
}
