// Package rawhello writes ClientHellos that no well-behaved client would send, and goes on from them: names that
// are missing, many or not names at all, extensions in any order and twice, a second hello that isn't the first one, hellos
// cut into records and segments of any size. [Handshake] then completes TLS 1.3 (RFC 8446) or TLS 1.2 (RFC 5246)
// as far as a probe needs: which certificate does the server present, and what does it answer to a request.
//
// It is a probe and no client: no certificate is verified and nothing that it sends should be secret.
package rawhello

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"slices"
)

// Versions of TLS.
const (
	TLS12 uint16 = 0x0303
	TLS13 uint16 = 0x0304
)

// Types of extensions (IANA, TLS ExtensionType Values).
const (
	ExtServerName     uint16 = 0
	ExtGroups         uint16 = 10
	ExtPointFormats   uint16 = 11
	ExtSignatures     uint16 = 13
	ExtALPN           uint16 = 16
	ExtMasterSecret   uint16 = 23
	ExtTicket         uint16 = 35
	ExtPreSharedKey   uint16 = 41
	ExtEarlyData      uint16 = 42
	ExtVersions       uint16 = 43
	ExtCookie         uint16 = 44
	ExtPSKModes       uint16 = 45
	ExtKeyShare       uint16 = 51
	ExtECH            uint16 = 0xfe0d // RFC 9849
	ExtRenegotiation  uint16 = 0xff01 // RFC 5746
	typeClientHello   byte   = 1
	longestRandom            = 32
	longestPlainBytes        = 1 << 14 // of one record, RFC 8446 section 5.1
)

// Groups that [Hello.Share] makes keys of (RFC 8446 section 4.2.7).
const (
	P256   uint16 = 23
	P384   uint16 = 24
	P521   uint16 = 25
	X25519 uint16 = 29
)

// Hello is a ClientHello, field by field, written as it is however wrong.
type Hello struct {
	// Version is legacy_version; zero is TLS 1.2's, as in all hellos since.
	Version uint16
	// Random is written as it is; [New] draws one.
	Random [longestRandom]byte
	// SessionID is of at most 255 bytes; more than 32 are wrong.
	SessionID []byte
	// Suites are the cipher suites.
	Suites []uint16
	// Compressions are the compression methods; nil is the one that there is, none.
	Compressions []byte
	// Extensions are written in this order. Nil leaves out the whole block.
	Extensions []Extension

	keys    map[uint16]*ecdh.PrivateKey
	session *Session
}

// Extension is one extension, with a body of at most 65535 bytes.
type Extension struct {
	Type uint16
	Body []byte
}

// New returns a hello as clients send it: TLS 1.3 and 1.2, a key share of X25519, and the names, of which there is one
// as a rule. Without any there is no extension for them.
func New(names ...string) *Hello {
	h := &Hello{
		SessionID: make([]byte, 32),
		Suites:    []uint16{0x1301, 0x1302, 0xc02b, 0xc02f, 0xc02c, 0xc030},
		Extensions: []Extension{
			Groups(X25519, P256, P384, P521), {ExtPointFormats, []byte{1, 0}},
			signatures, {ExtMasterSecret, nil}, {ExtRenegotiation, []byte{0}},
			Versions(TLS13, TLS12),
		},
	}
	_, _ = rand.Read(h.Random[:]) // never fails
	_, _ = rand.Read(h.SessionID)
	if len(names) > 0 {
		h.Extensions = slices.Insert(h.Extensions, 0, Names(names...))
	}
	return h.Share(X25519)
}

// New12 returns a hello as clients send it that know nothing newer than TLS 1.2. It asks for a ticket.
func New12(names ...string) *Hello {
	h := New(names...).Drop(ExtVersions).Drop(ExtKeyShare).Set(Extension{Type: ExtTicket})
	h.Suites, h.SessionID = h.Suites[2:], nil
	return h
}

// signatures are what servers sign with: ECDSA, RSA-PSS, PKCS #1 and Ed25519. None is verified.
var signatures = Extension{ExtSignatures, vector16(words(0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807))}

// Clone returns a copy that shares the keys and nothing else.
func (h *Hello) Clone() *Hello {
	c := *h
	c.SessionID, c.Suites, c.Compressions = slices.Clone(h.SessionID), slices.Clone(h.Suites), slices.Clone(h.Compressions)
	c.Extensions = slices.Clone(h.Extensions)
	return &c
}

// Get returns the first extension of a type.
func (h *Hello) Get(kind uint16) (Extension, bool) {
	if i := h.index(kind); i >= 0 {
		return h.Extensions[i], true
	}
	return Extension{}, false
}

// Set puts an extension in the place of the first one of its type, or at the end.
func (h *Hello) Set(e Extension) *Hello {
	if i := h.index(e.Type); i >= 0 {
		h.Extensions[i] = e
		return h
	}
	return h.Add(e)
}

// Add puts extensions at the end, also where there are some of their type: this is how they are doubled.
func (h *Hello) Add(e ...Extension) *Hello {
	h.Extensions = append(h.Extensions, e...)
	return h
}

// Drop takes away all extensions of a type.
func (h *Hello) Drop(kind uint16) *Hello {
	h.Extensions = slices.DeleteFunc(slices.Clone(h.Extensions), func(e Extension) bool { return e.Type == kind })
	return h
}

func (h *Hello) index(kind uint16) int {
	return slices.IndexFunc(h.Extensions, func(e Extension) bool { return e.Type == kind })
}

// Share sets the key shares, with new keys; of groups that aren't [X25519], [P256], [P384] or [P521] none is made. Without groups
// the list is empty: a server that speaks TLS 1.3 then asks for another hello (RFC 8446 section 4.2.8).
func (h *Hello) Share(groups ...uint16) *Hello {
	h.keys = map[uint16]*ecdh.PrivateKey{}
	var list []byte
	for _, g := range groups {
		curve := curves[g]
		if curve == nil {
			continue
		}
		key, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			panic(err) // of the system's random numbers, which don't fail
		}
		h.keys[g] = key
		list = append(append(list, words(g)...), vector16(key.PublicKey().Bytes())...)
	}
	return h.Set(Extension{ExtKeyShare, vector16(list)})
}

var curves = map[uint16]ecdh.Curve{P256: ecdh.P256(), P384: ecdh.P384(), P521: ecdh.P521(), X25519: ecdh.X25519()}

// Message returns the handshake message. Lengths that are too long for their fields are cut to their low bits, as
// a broken client would write them.
func (h *Hello) Message() []byte {
	version := h.Version
	if version == 0 {
		version = TLS12
	}
	b := append(words(version), h.Random[:]...)
	b = append(append(b, byte(len(h.SessionID))), h.SessionID...)
	b = append(b, vector16(words(h.Suites...))...)
	compressions := h.Compressions
	if compressions == nil {
		compressions = []byte{0}
	}
	b = append(append(b, byte(len(compressions))), compressions...)
	if h.Extensions != nil {
		var list []byte
		for _, e := range h.Extensions {
			list = append(append(list, words(e.Type)...), vector16(e.Body)...)
		}
		b = append(b, vector16(list)...)
	}
	return message(typeClientHello, b)
}

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func words(w ...uint16) []byte {
	b := make([]byte, 0, 2*len(w))
	for _, v := range w {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func vector16(b []byte) []byte { return append(words(uint16(len(b))), b...) }
