package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/postern-link/postern/link"
)

// A backup is text, one JSON value a line: a header, one line an object in order of kind and key, and a
// trailer with the number of objects and the SHA-256 of all bytes before it. People can read it with
// the tools they have; it can't be edited without the trailer noticing. It holds the state, not
// the audit record. Restoring is a commit of [link.Restore] like any other change.
const (
	backupMagic  = "postern backup"
	backupFormat = 1
	// maxBackupLine bounds one line, in bytes, so that a foreign file can't fill the memory.
	maxBackupLine = 16 << 20
)

type backupHeader struct {
	Magic    string    `json:"magic"`
	Format   int       `json:"format"`
	Revision uint64    `json:"revision"`
	Time     time.Time `json:"time"`
}

type backupLine struct {
	Kind   link.Kind       `json:"kind"`
	Object json.RawMessage `json:"object"`
}

type backupTrailer struct {
	Objects int    `json:"objects"`
	SHA256  string `json:"sha256"`
}

// WriteBackup writes a snapshot as a backup made at the time at. The snapshot is immutable, so a slow
// writer holds up nobody. Errors are those of w and ctx.
func WriteBackup(ctx context.Context, w io.Writer, s *link.Snapshot, at time.Time) error {
	bw := bufio.NewWriter(w)
	sum := sha256.New()
	both := io.MultiWriter(bw, sum)
	err := writeLine(both, backupHeader{backupMagic, backupFormat, s.Revision(), at.UTC()})
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	n := 0
	for o := range s.Objects() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write backup: %w", context.Cause(ctx))
		}
		body, err := encodeBody(o)
		if err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		if err := writeLine(both, backupLine{o.Kind(), body}); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		n++
	}
	if err := writeLine(bw, backupTrailer{n, hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// ReadBackup returns the revision and the objects of a backup, all or nothing. The error wraps
// [ErrForeign] where r is no backup or one of a newer format, [ErrDamaged] where it was cut or
// changed, or is that of r. Whether the objects obey the rules is for [link.Restore] to say.
func ReadBackup(r io.Reader) (revision uint64, objects []link.Object, err error) {
	br := &backupReader{in: bufio.NewReader(r), sum: sha256.New()}
	revision, err = br.header()
	if err != nil {
		return 0, nil, fmt.Errorf("read backup: %w", err)
	}
	var bad error // the first object that we can't read
	for n := 0; ; n++ {
		line, err := br.next()
		if err != nil {
			return 0, nil, fmt.Errorf("read backup: line %d: %w", br.line, err)
		}
		if isTrailer(line) {
			// First this: where the checksum is wrong, whatever else is wrong follows from it.
			if err := br.trailer(line, n); err != nil {
				return 0, nil, fmt.Errorf("read backup: line %d: %w", br.line, err)
			}
			if bad != nil {
				return 0, nil, fmt.Errorf("read backup: %w", bad)
			}
			return revision, objects, nil
		}
		if bad != nil {
			continue
		}
		o, err := decodeLine(line)
		if err != nil {
			bad = fmt.Errorf("line %d: %w", br.line, err)
			continue
		}
		objects = append(objects, o)
	}
}

type backupReader struct {
	in   *bufio.Reader
	sum  hash.Hash // over the lines before the current one
	prev []byte    // the current line
	line int
}

// next returns the next line with its newline, and takes the one before into the sum.
func (r *backupReader) next() ([]byte, error) {
	r.sum.Write(r.prev)
	r.prev = r.prev[:0]
	r.line++
	for {
		part, err := r.in.ReadSlice('\n')
		if len(r.prev)+len(part) > maxBackupLine {
			return nil, fmt.Errorf("%w: a line of more than %d bytes", ErrForeign, maxBackupLine)
		}
		r.prev = append(r.prev, part...)
		switch {
		case err == nil:
			return r.prev, nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: it ends before its end line", ErrDamaged)
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

func (r *backupReader) header() (uint64, error) {
	line, err := r.next()
	if errors.Is(err, ErrDamaged) {
		return 0, fmt.Errorf("%w: no header line", ErrForeign)
	} else if err != nil {
		return 0, err
	}
	var h backupHeader
	// Lenient here alone: a newer header may have more fields and must be told its format.
	if err := json.Unmarshal(line, &h); err != nil || h.Magic != backupMagic {
		return 0, fmt.Errorf("%w: the first line isn't that of a backup", ErrForeign)
	}
	if h.Format != backupFormat {
		return 0, fmt.Errorf("%w: format %d, this program knows %d", ErrForeign, h.Format, backupFormat)
	}
	return h.Revision, nil
}

func isTrailer(line []byte) bool { return bytes.HasPrefix(line, []byte(`{"objects":`)) }

func decodeLine(line []byte) (link.Object, error) {
	var l backupLine
	if err := unmarshalStrict(line, &l); err != nil {
		return nil, err
	}
	o := newObject(l.Kind)
	if o == nil {
		return nil, fmt.Errorf("%w: unknown kind %q: %s", ErrForeign, string(l.Kind), upgrade)
	}
	if err := decodeBody(l.Object, o); err != nil {
		return nil, err
	}
	return o, nil
}

// trailer compares the last line with the one we would have written, byte for byte.
func (r *backupReader) trailer(line []byte, n int) error {
	var want bytes.Buffer
	if err := writeLine(&want, backupTrailer{n, hex.EncodeToString(r.sum.Sum(nil))}); err != nil {
		return err
	}
	if !bytes.Equal(line, want.Bytes()) {
		return fmt.Errorf("%w: count or checksum is wrong", ErrDamaged)
	}
	if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes after its end line", ErrDamaged)
	}
	return nil
}

// Restore makes the state of s that of a backup, in one commit that is audited like any other. Nothing
// happens unless the whole backup is sound. entry.Action and the like are the caller's.
func Restore(ctx context.Context, s Store, backup io.Reader, entry Entry) (*link.Snapshot, error) {
	revision, objects, err := ReadBackup(backup)
	if err != nil {
		return nil, err
	}
	return Update(ctx, s, func(*link.Snapshot) (Entry, []link.Change, error) {
		return entry, []link.Change{link.Restore{Objects: objects, Revision: revision}}, nil
	})
}
