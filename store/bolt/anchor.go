package bolt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

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

// witness is the file beside the state file: the last revision that Commit acknowledged. It is
// written after the transaction is on disk and before Commit returns, so whatever moment a process
// is killed at leaves it equal to the state file or one behind, never ahead. A witness ahead says
// that the state file lost commits: it was rolled back, or its newer meta page was damaged and bolt
// would silently go on with the older one. It isn't synced: after a power cut it may be some
// commits behind, which hides nothing but a second fault at that same moment.
type witness struct {
	Format   int    `json:"format"`
	File     string `json:"file"`
	Revision uint64 `json:"revision"`
	PID      int    `json:"pid"` // of the process that wrote it, for the message of a locked file
}

const (
	anchorFormat = 1
	// witnessSize is the length of the witness file: within one sector, so that it is never torn,
	// and always the same, so that it is overwritten in place.
	witnessSize   = 256
	witnessSuffix = ".witness"
)

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

// readWitness returns the witness of a state file, nil where there is none. The error wraps
// store.ErrDamaged where it is there and unreadable as a witness.
func readWitness(path string) (*witness, error) {
	b, err := os.ReadFile(path + witnessSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var w witness
	if err := unseal(bytes.TrimRight(b, " \n"), &w); err != nil {
		return nil, fmt.Errorf("%s: %w", path+witnessSuffix, err)
	}
	if w.Format != anchorFormat {
		return nil, fmt.Errorf("%s: %w: format %d, this program knows %d", path+witnessSuffix, store.ErrForeign, w.Format, anchorFormat)
	}
	return &w, nil
}

// judge says whether a witness (nil: there is none) allows a state file with the given anchor.
// spare: one meta page of the file is unreadable.
func (w *witness) judge(a anchor, spare bool) error {
	switch {
	case w == nil && spare:
		return fmt.Errorf("%w: one meta page is unreadable, and no witness file says that nothing was lost", store.ErrDamaged)
	case w == nil:
		return nil
	case w.File != a.File:
		return fmt.Errorf("%w: the witness file beside it is of another state file", store.ErrDamaged)
	case w.Revision > a.Revision:
		return fmt.Errorf("%w: it is at revision %d, but revision %d was committed: it was rolled back or lost its last commits",
			store.ErrDamaged, a.Revision, w.Revision)
	}
	return nil
}

// openWitness makes the witness file say revision, in a new file: the old one may be damaged,
// or another name of a file that isn't ours to write to.
func openWitness(path string, w witness) (*os.File, error) {
	b, err := w.encode()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dirOf(path), baseOf(path)+witnessSuffix+".new-*")
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path+witnessSuffix)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func (w witness) encode() ([]byte, error) {
	b, err := seal(w)
	if err != nil {
		return nil, err
	}
	if len(b) >= witnessSize {
		return nil, fmt.Errorf("witness of %d bytes", len(b))
	}
	line := bytes.Repeat([]byte{' '}, witnessSize)
	copy(line, b)
	line[witnessSize-1] = '\n'
	return line, nil
}
