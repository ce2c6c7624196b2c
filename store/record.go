package store

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/bits"

	"github.com/postern-link/postern/link"
)

// RecordFormat is the version of the records that this program writes, and the only one it reads.
const RecordFormat = 1

// Sum is the checksum of a record: the first half of the SHA-256 of its format, kind, key and body.
// It is a SHA-256 and not a CRC because it is also the record's share of a [Set], where a sum of CRCs
// would let two errors cancel; hardware does SHA-256 at gigabytes per second, so that a load of 100,000
// records doesn't notice.
type Sum [16]byte

const recordHead = 1 + len(Sum{}) // format, sum

// EncodeRecord returns the stored form of an object: one byte of format, the [Sum], the body as JSON.
// Kind and key aren't in it: they are the key it is stored under, and the sum covers them, so that a
// record found under another key is damage.
func EncodeRecord(o link.Object) ([]byte, error) {
	body, err := encodeBody(o)
	if err != nil {
		return nil, err
	}
	rec := make([]byte, recordHead, recordHead+len(body))
	rec[0] = RecordFormat
	sum := sumOf(o.Kind(), o.Key(), body)
	copy(rec[1:], sum[:])
	return append(rec, body...), nil
}

// DecodeRecord is the reverse of [EncodeRecord] for a record found under kind and key. The error wraps
// [ErrForeign] where the kind is unknown, the format newer, or a part of the object has fields that we
// don't know, else [ErrDamaged]. Fields of the object itself that we don't know are kept: see body.go.
func DecodeRecord(kind link.Kind, key string, rec []byte) (link.Object, error) {
	if len(rec) == 0 {
		return nil, fmt.Errorf("record %s/%q: %w: it is empty", kind, key, ErrDamaged)
	}
	if rec[0] != RecordFormat {
		return nil, fmt.Errorf("record %s/%q: %w: format %d, this program knows %d", kind, key, ErrForeign, rec[0], RecordFormat)
	}
	o := newObject(kind)
	if o == nil {
		return nil, fmt.Errorf("record %q/%q: %w: unknown kind: %s", string(kind), key, ErrForeign, upgrade)
	}
	sum, err := RecordSum(rec)
	if err != nil {
		return nil, fmt.Errorf("record %s/%q: %w", kind, key, err)
	}
	body := rec[recordHead:]
	if sum != sumOf(kind, key, body) {
		return nil, fmt.Errorf("record %s/%q: %w: the checksum is wrong", kind, key, ErrDamaged)
	}
	if err := decodeBody(body, o); err != nil {
		return nil, fmt.Errorf("record %s/%q: %w", kind, key, err)
	}
	if o.Key() != key {
		return nil, fmt.Errorf("record %s/%q: %w: its body is of %q", kind, key, ErrDamaged, o.Key())
	}
	return o, nil
}

// RecordSum returns the checksum that a record carries, without judging it.
func RecordSum(rec []byte) (Sum, error) {
	if len(rec) < recordHead {
		return Sum{}, fmt.Errorf("%w: a record of %d bytes", ErrDamaged, len(rec))
	}
	return Sum(rec[1:recordHead]), nil
}

func newObject(kind link.Kind) link.Object {
	switch kind {
	case link.KindNetwork:
		return new(link.Network)
	case link.KindService:
		return new(link.Service)
	case link.KindEndpoint:
		return new(link.Endpoint)
	case link.KindRetired:
		return new(link.Retired)
	case link.KindZone:
		return new(link.PrivateZone)
	case link.KindRecord:
		return new(link.RecordSet)
	case link.KindDocument:
		return new(link.Document)
	}
	return nil
}

func sumOf(kind link.Kind, key string, body []byte) Sum {
	// Lengths, not separators, divide the parts: no two records hash the same bytes.
	head := make([]byte, 0, 256)
	head = fmt.Appendf(head, "postern record %d %d %d %s%s", RecordFormat, len(kind), len(key), kind, key)
	h := sha256.New()
	h.Write(head)
	h.Write(body)
	return Sum(h.Sum(head[:0])[:len(Sum{})])
}

// Set is a fingerprint of a set of records that is updated in constant time: their number and the sum
// of their checksums modulo 2^128. It finds records that are missing, doubled, or of another time,
// each valid on its own. It is no defence against someone who computes checksums to deceive.
// The zero Set is that of no records.
type Set struct {
	Count  uint64
	hi, lo uint64
}

// Add puts a record into the set.
func (s *Set) Add(sum Sum) {
	hi, lo := sum.words()
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, hi, carry)
	s.Count++
}

// Remove takes a record out of the set.
func (s *Set) Remove(sum Sum) {
	hi, lo := sum.words()
	var borrow uint64
	s.lo, borrow = bits.Sub64(s.lo, lo, 0)
	s.hi, _ = bits.Sub64(s.hi, hi, borrow)
	s.Count--
}

func (s Sum) words() (hi, lo uint64) {
	for _, b := range s[:8] {
		hi = hi<<8 | uint64(b)
	}
	for _, b := range s[8:] {
		lo = lo<<8 | uint64(b)
	}
	return hi, lo
}

// MarshalText implements [encoding.TextMarshaler]: "COUNT-HEX".
func (s Set) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d-%016x%016x", s.Count, s.hi, s.lo), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. The error wraps [ErrDamaged].
func (s *Set) UnmarshalText(text []byte) error {
	var got Set
	if _, err := fmt.Sscanf(string(text), "%d-%16x%16x", &got.Count, &got.hi, &got.lo); err != nil {
		return fmt.Errorf("%w: set %q: %w", ErrDamaged, text, err)
	}
	if again, _ := got.MarshalText(); !bytes.Equal(again, text) {
		return fmt.Errorf("%w: set %q", ErrDamaged, text)
	}
	*s = got
	return nil
}
