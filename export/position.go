package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/postern-link/postern/internal/wholefile"
	"github.com/postern-link/postern/store"
)

// position is what a receiver has of the audit record: all up to a revision, where the chain was that. Zero: nothing.
type position struct {
	revision uint64
	chain    store.Chain
}

// positionWord begins the file, with the version of its format.
const positionWord = "postern-export-position 1"

// errDamaged: the file isn't what was written.
var errDamaged = errors.New("not a position as it was written")

func isDamaged(err error) bool { return errors.Is(err, errDamaged) }

// encode returns the file: a line with revision, chain, and the SHA-256 of what stands before it.
func (p position) encode() []byte {
	text := positionWord + " " + strconv.FormatUint(p.revision, 10) + " " + hex.EncodeToString(p.chain[:]) + " "
	sum := sha256.Sum256([]byte(text))
	return []byte(text + hex.EncodeToString(sum[:]) + "\n")
}

// parsePosition reads what encode has written, and nothing else.
func parsePosition(text []byte) (p position, err error) {
	rest, ok := strings.CutPrefix(string(text), positionWord+" ")
	words := strings.Split(rest, " ")
	if !ok || len(words) != 3 {
		return position{}, errDamaged
	}
	p.revision, err = strconv.ParseUint(words[0], 10, 64)
	if err == nil {
		err = p.chain.UnmarshalText([]byte(words[1]))
	}
	if err != nil || !bytes.Equal(p.encode(), text) {
		return position{}, errDamaged
	}
	return p, nil
}

// mostPosition is longer than any file that we write.
const mostPosition = 1 << 10

// readPosition reads a file. One that isn't there is the zero position. The error wraps errDamaged where the file was read.
func readPosition(path string) (position, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Dir(path)) // where it has to be made
		return position{}, err
	} else if err != nil {
		return position{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostPosition))
	if err != nil {
		return position{}, err
	}
	if !ours(text) {
		return position{}, fmt.Errorf("%s: the file is none of a position; it isn't written over", path)
	}
	p, err := parsePosition(text)
	if err != nil {
		return position{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ours reports whether a file is a position that may be damaged, and not something else.
func ours(text []byte) bool {
	same := 0
	for i := range min(len(text), len(positionWord)) {
		if text[i] == positionWord[i] {
			same++
		}
	}
	return same > len(positionWord)/2 || len(bytes.Trim(text, "\x00")) == 0 || bytes.HasPrefix([]byte(positionWord), text)
}

// canWrite returns why a position can't be written at a path.
func canWrite(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".export-") // the name of what write makes is another process's, too
	if err != nil {
		return fmt.Errorf("the file of the position is made in its directory: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Unfinished returns where a position is written before it takes the place of the file at path.
func Unfinished(path string) string { return path + ".new" }

// write puts the position in place of the file, whole, and on the disk when it returns.
func (p position) write(path string) (err error) {
	fresh := Unfinished(path)
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p.encode())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return wholefile.SyncDir(path)
}
