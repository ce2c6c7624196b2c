package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
)

// Chain is what the audit record adds up to after one of its lines: the SHA-256 of the chain before,
// the line's revision and its body. A line that is changed, dropped or moved breaks every later one.
// The zero Chain is that before the first line.
type Chain [sha256.Size]byte

const lineHead = 1 + len(Chain{}) // format, chain

// Append returns the stored form of the entry that follows c and the chain after it. The form is
// one byte of format, the chain after the line, the entry as JSON.
func (c Chain) Append(e Entry) (line []byte, after Chain, err error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, c, fmt.Errorf("encode audit entry %d: %w", e.Revision, err)
	}
	after = c.after(e.Revision, body)
	line = make([]byte, 0, lineHead+len(body))
	line = append(line, RecordFormat)
	line = append(line, after[:]...)
	return append(line, body...), after, nil
}

// Next decodes the line of a revision that follows c, and returns the chain after it. Errors
// wrap [ErrDamaged] or [ErrForeign].
func (c Chain) Next(revision uint64, line []byte) (Entry, Chain, error) {
	after, err := LineChain(line)
	if err != nil {
		return Entry{}, c, fmt.Errorf("audit entry %d: %w", revision, err)
	}
	body := line[lineHead:]
	if after != c.after(revision, body) {
		return Entry{}, c, fmt.Errorf("audit entry %d: %w: the chain of the audit record is broken", revision, ErrDamaged)
	}
	var e Entry
	if err := json.Unmarshal(body, &e); err != nil { // not strict: nobody writes it back
		return Entry{}, c, fmt.Errorf("audit entry %d: %w: %w", revision, ErrForeign, err)
	}
	if e.Revision != revision {
		return Entry{}, c, fmt.Errorf("audit entry %d: %w: its body is of %d", revision, ErrDamaged, e.Revision)
	}
	return e, after, nil
}

// LineChain returns the chain that a stored line carries, without judging it: where a reader starts
// that has verified the lines before, or that doesn't start with the first.
func LineChain(line []byte) (Chain, error) {
	if len(line) < lineHead {
		return Chain{}, fmt.Errorf("%w: a line of %d bytes", ErrDamaged, len(line))
	}
	if line[0] != RecordFormat {
		return Chain{}, fmt.Errorf("%w: format %d, this program knows %d", ErrForeign, line[0], RecordFormat)
	}
	return Chain(line[1:lineHead]), nil
}

func (c Chain) after(revision uint64, body []byte) Chain {
	h := sha256.New()
	h.Write(c[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], revision)
	h.Write(n[:])
	h.Write(body)
	return Chain(h.Sum(nil))
}

// MarshalText implements [encoding.TextMarshaler]: hexadecimal.
func (c Chain) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, c[:]), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. The error wraps [ErrDamaged].
func (c *Chain) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(c) {
		return fmt.Errorf("%w: audit chain %q", ErrDamaged, text)
	}
	*c = Chain(b)
	return nil
}

// Entries decodes what lines yields, each checked against the one before it, from a revision on: what
// backends build Audit on. lines is their Lines.
func Entries(ctx context.Context, lines func(context.Context, uint64) iter.Seq2[Line, error], from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var chain Chain
		for l, err := range lines(ctx, max(from, 2)-1) { // with the line before, which carries the chain so far
			var e Entry
			switch {
			case err != nil:
			case l.Revision < from:
				chain, err = LineChain(l.Bytes)
			default:
				e, chain, err = chain.Next(l.Revision, l.Bytes)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if l.Revision >= from && !yield(e, nil) {
				return
			}
		}
	}
}

// Find looks for the commit with the given ID at a revision of from or later: what to do after
// [ErrUnknownOutcome], with the revision after that of the base.
func Find(ctx context.Context, s Store, id string, from uint64) (e Entry, found bool, err error) {
	for e, err := range s.Audit(ctx, from) {
		if err != nil {
			return Entry{}, false, err
		}
		if e.ID == id {
			return e, true, nil
		}
	}
	return Entry{}, false, nil
}
