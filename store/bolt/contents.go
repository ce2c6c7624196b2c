package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// contents is a state file after a full read in which everything added up.
type contents struct {
	anchor   anchor
	snapshot *link.Snapshot
	txid     uint64 // of the meta page in force
}

// readFile reads and checks all of a locked state file.
func readFile(f *os.File, path string, log *slog.Logger) (*contents, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	im, err := readImage(f, st.Size())
	if err != nil {
		return nil, err
	}
	r := reader{}
	err = im.walk(r.element)
	objects, damage := r.decoder.Finish()
	if damage != nil {
		return nil, damage
	}
	if err != nil {
		return nil, err
	}
	c, err := r.finish(objects)
	if err != nil {
		return nil, err
	}
	c.txid = im.meta.txid
	w, err := readWitness(path)
	if err != nil {
		// It can say nothing then; the state file has just proved itself.
		log.Warn("witness file of the state is unreadable, making a new one", "error", err)
	} else if w == nil && c.anchor.Revision > 0 {
		log.Warn("state file has no witness file: can't tell whether it is an older copy", "path", path, "revision", c.anchor.Revision)
	}
	if err := w.judge(c.anchor, im.spare); err != nil {
		return nil, err
	}
	if im.spare {
		log.Warn("one meta page of the state file is unreadable; the other one is the last commit", "path", path)
	}
	return c, nil
}

// reader takes the elements of a state file in the order of the file: audit, meta, objects.
type reader struct {
	anchored bool
	anchor   anchor
	decoder  store.Decoder
	set      store.Set
	lines    uint64
	chain    store.Chain
}

func (r *reader) element(bucket, key, value []byte) error {
	switch {
	case bytes.Equal(bucket, bucketObjects):
		return r.object(string(key), value)
	case bytes.Equal(bucket, bucketAudit):
		return r.line(key, value)
	case bytes.Equal(bucket, bucketMeta) && bytes.Equal(key, keyAnchor):
		var err error
		r.anchor, err = decodeAnchor(value)
		r.anchored = true
		return err
	}
	return fmt.Errorf("%w: bucket %q, key %q", store.ErrForeign, bucket, key)
}

func (r *reader) object(name string, value []byte) error {
	kind, key, _ := strings.Cut(name, "/")
	r.decoder.Add(link.Kind(kind), key, value)
	sum, err := store.RecordSum(value)
	if err != nil {
		return err
	}
	r.set.Add(sum)
	return nil
}

func (r *reader) line(key, value []byte) error {
	r.lines++
	if len(key) != 8 || binary.BigEndian.Uint64(key) != r.lines {
		return fmt.Errorf("%w: audit entry %d is missing", store.ErrDamaged, r.lines)
	}
	var err error
	_, r.chain, err = r.chain.Next(r.lines, value)
	return err
}

// finish compares what was read with the anchor and makes the snapshot.
func (r *reader) finish(objects []link.Object) (*contents, error) {
	switch a := r.anchor; {
	case !r.anchored:
		return nil, fmt.Errorf("%w: a bolt file without our revision anchor", store.ErrForeign)
	case r.set != a.Objects:
		return nil, fmt.Errorf("%w: it has %d objects that don't add up to the %d of revision %d", store.ErrDamaged, r.set.Count, a.Objects.Count, a.Revision)
	case r.lines != a.Revision || r.chain != a.Audit:
		return nil, fmt.Errorf("%w: the audit record ends at %d, the state is of revision %d", store.ErrDamaged, r.lines, a.Revision)
	}
	s, err := link.Load(r.anchor.Revision, slices.Values(objects))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrDamaged, err)
	}
	return &contents{anchor: r.anchor, snapshot: s}, nil
}
