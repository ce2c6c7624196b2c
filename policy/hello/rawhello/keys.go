package rawhello

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

// suite is a cipher suite that handshakes can be completed with: all of them AES in GCM.
type suite struct {
	tls13 bool
	hash  func() hash.Hash
	key   int // bytes
}

var suites = map[uint16]*suite{
	0x1301: {true, sha256.New, 16},
	0x1302: {true, sha512.New384, 32},
	0xc02b: {false, sha256.New, 16}, // ECDHE with ECDSA (RFC 5289)
	0xc02c: {false, sha512.New384, 32},
	0xc02f: {false, sha256.New, 16}, // ECDHE with RSA
	0xc030: {false, sha512.New384, 32},
}

func (s *suite) sum(b []byte) []byte {
	h := s.hash()
	h.Write(b)
	return h.Sum(nil)
}

func (s *suite) mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(s.hash, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func (s *suite) extract(secret, salt []byte) []byte {
	b, err := hkdf.Extract(s.hash, secret, salt)
	return must(b, err)
}

// expand is HKDF-Expand-Label (RFC 8446 section 7.1).
func (s *suite) expand(secret []byte, label string, context []byte, n int) []byte {
	label = "tls13 " + label
	info := append(words(uint16(n)), byte(len(label)))
	info = append(append(info, label...), byte(len(context)))
	b, err := hkdf.Expand(s.hash, secret, string(append(info, context...)), n)
	return must(b, err)
}

// derive is Derive-Secret (RFC 8446 section 7.1).
func (s *suite) derive(secret []byte, label string, transcript []byte) []byte {
	return s.expand(secret, label, s.sum(transcript), s.hash().Size())
}

// half13 returns a direction with the keys of a traffic secret (RFC 8446 section 7.3).
func (s *suite) half13(secret []byte) half {
	return half{aead: s.aead(s.expand(secret, "key", nil, s.key)), iv: s.expand(secret, "iv", nil, 12), tls13: true}
}

// finished13 is the content of a Finished (RFC 8446 section 4.4.4).
func (s *suite) finished13(secret, transcript []byte) []byte {
	return s.mac(s.expand(secret, "finished", nil, s.hash().Size()), s.sum(transcript))
}

// prf is the pseudorandom function of TLS 1.2 (RFC 5246 section 5).
func (s *suite) prf(secret []byte, label string, seed []byte, n int) []byte {
	seed = append([]byte(label), seed...)
	var out []byte
	for a := seed; len(out) < n; {
		a = s.mac(secret, a)
		out = append(out, s.mac(secret, a, seed)...)
	}
	return out[:n]
}

func (s *suite) aead(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	return must(gcm, err)
}

// must is for what fails only where a length here is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
