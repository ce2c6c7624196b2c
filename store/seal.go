package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

const sealHead = 32 // hexadecimal digits

// Seal returns v as JSON after the first half of the SHA-256 of that JSON, in hexadecimal: the form of
// what backends keep of their own.
func Seal(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append(hex.AppendEncode(nil, sum[:sealHead/2]), body...), nil
}

// Unseal is the reverse of [Seal]. The error wraps [ErrDamaged].
func Unseal(b []byte, v any) error {
	if len(b) < sealHead {
		return fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	sum := sha256.Sum256(b[sealHead:])
	if !bytes.Equal(b[:sealHead], hex.AppendEncode(nil, sum[:sealHead/2])) {
		return fmt.Errorf("%w: the checksum is wrong", ErrDamaged)
	}
	if err := json.Unmarshal(b[sealHead:], v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
