package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Line is one line of the audit record as a node stores it: a byte of format, the chain after the line, the
// entry as JSON. This package recomputes the chain by itself, so that who verifies need not believe the
// code that wrote it.
type Line struct {
	Revision uint64 `json:"revision"`
	Bytes    []byte `json:"line"`
}

// lineFormat is the format of lines that this program knows.
const lineFormat = 1

// chain is what the record adds up to: SHA-256 of the chain before, the revision as 8 bytes, big-endian, and
// the entry. Before the first line it is all zero.
type chain [sha256.Size]byte

var errBroken = errors.New("the audit record was changed")

// head is a chain and the revision that it is after.
type head struct {
	chain    chain
	revision uint64
}

func (h head) String() string {
	return hex.EncodeToString(h.chain[:]) + "@" + strconv.FormatUint(h.revision, 10)
}

// parseHead reads what String writes.
func parseHead(s string) (h head, err error) {
	text, revision, _ := strings.Cut(s, "@")
	b, err := hex.DecodeString(text)
	if err == nil && len(b) != len(h.chain) {
		err = errors.New("not a SHA-256")
	}
	if err == nil {
		h.chain = chain(b)
		h.revision, err = strconv.ParseUint(revision, 10, 64)
	}
	if err != nil {
		return head{}, usagef("head %q: HEX@REVISION is expected, as \"postern audit verify\" prints it", s)
	}
	return h, nil
}

// verifier follows the chain of a record from its first line.
type verifier struct {
	at      head
	lines   int
	expect  *head // nil: nothing
	reached bool  // the revision of expect
}

// next judges a line.
func (v *verifier) next(l Line) error {
	want := v.at.revision + 1
	switch {
	case l.Revision != want:
		return fmt.Errorf("%w: entry %d is missing, %d follows %d", errBroken, want, l.Revision, v.at.revision)
	case len(l.Bytes) < 1+sha256.Size:
		return fmt.Errorf("%w: entry %d has %d bytes", errBroken, l.Revision, len(l.Bytes))
	case l.Bytes[0] != lineFormat:
		return fmt.Errorf("entry %d has format %d, this program knows %d", l.Revision, l.Bytes[0], lineFormat)
	}
	body := l.Bytes[1+sha256.Size:]
	h := sha256.New()
	h.Write(v.at.chain[:])
	h.Write(binary.BigEndian.AppendUint64(nil, l.Revision))
	h.Write(body)
	sum := chain(h.Sum(nil))
	if !bytes.Equal(sum[:], l.Bytes[1:1+sha256.Size]) {
		return fmt.Errorf("%w: entry %d doesn't follow from those before it", errBroken, l.Revision)
	}
	var e struct {
		Revision uint64 `json:"revision"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Revision != l.Revision {
		return fmt.Errorf("%w: entry %d isn't what it claims to be", errBroken, l.Revision)
	}
	v.at = head{sum, l.Revision}
	v.lines++
	if v.expect != nil && v.expect.revision == l.Revision {
		v.reached = true
		if v.expect.chain != sum {
			return fmt.Errorf("%w: at revision %d the chain was %s and is %s", errBroken, l.Revision, hex.EncodeToString(v.expect.chain[:]), hex.EncodeToString(sum[:]))
		}
	}
	return nil
}

// end judges what was read as a whole.
func (v *verifier) end() error {
	if v.expect != nil && !v.reached && v.expect.revision > 0 {
		return fmt.Errorf("%w: it ends at revision %d, and has been at %d", errBroken, v.at.revision, v.expect.revision)
	}
	return nil
}
