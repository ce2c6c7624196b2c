package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// TestRolledBack puts an older copy, a copy of another file, or nothing in the place of a state file.
func TestRolledBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, path)
	mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
	mustClose(t, s)
	old := readAll(t, path)
	s = mustOpen(t, path)
	mustCommit(t, s, 2, link.PutNetwork{Network: storetest.Network(2)})
	mustClose(t, s)
	witness := readAll(t, path+witnessSuffix)

	wantRefused(t, putFiles(t, old, witness), store.ErrDamaged, "revision 1", "revision 2")
	wantRefused(t, putFiles(t, makeOriginal(t).file, witness), store.ErrDamaged, "another state file")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, path, store.ErrDamaged, "gone", "revision 2")
	if err := os.Remove(path + witnessSuffix); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, path)) // empty on purpose
}

// TestWitnessBehind: a process killed between the transaction and the witness leaves it one behind.
func TestWitnessBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, path)
	mustCommit(t, s, 1)
	behind := readAll(t, path+witnessSuffix)
	mustCommit(t, s, 2)
	mustClose(t, s)
	path = putFiles(t, readAll(t, path), behind)
	s = mustOpen(t, path)
	if got := s.current.Load().Revision(); got != 2 {
		t.Errorf("revision %d, want 2", got)
	}
	mustClose(t, s)
	if w, err := readWitness(path); err != nil || w.Revision != 2 {
		t.Errorf("witness %+v, %v; want it to have caught up", w, err)
	}
}

// TestForged: files that are sound to bolt, and whose records each have their checksum, but that aren't
// what was committed.
func TestForged(t *testing.T) {
	for _, c := range []struct {
		name  string
		forge func(tx *bbolt.Tx) error
	}{
		{"an object is missing", func(tx *bbolt.Tx) error { return tx.Bucket(bucketObjects).Delete([]byte("network/net-1")) }},
		{"an object more", func(tx *bbolt.Tx) error {
			n := storetest.Network(99)
			rec, err := store.EncodeRecord(&n)
			if err != nil {
				return err
			}
			return tx.Bucket(bucketObjects).Put([]byte("network/net-99"), rec)
		}},
		{"the last audit entry is missing", func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Delete(auditKey(3)) }},
		{"the first audit entry is missing", func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Delete(auditKey(1)) }},
		{"an audit entry is another", func(tx *bbolt.Tx) error {
			line, _, err := store.Chain{}.Append(store.Entry{Revision: 1, Actor: "nobody"})
			if err != nil {
				return err
			}
			return tx.Bucket(bucketAudit).Put(auditKey(1), line)
		}},
		{"no anchor", func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyAnchor) }},
		{"a bucket more", func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("more"))
			if err != nil {
				return err
			}
			return b.Put([]byte("k"), nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			s := mustOpen(t, path)
			for n := range 3 {
				mustCommit(t, s, n, link.PutNetwork{Network: storetest.Network(n)})
			}
			mustClose(t, s)
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(c.forge), db.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path, Options{}); !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for range 2 {
		mustClose(t, mustOpen(t, path))
		for _, p := range []string{path, path + witnessSuffix} {
			st, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if st.Mode() != 0o600 {
				t.Errorf("%s has mode %v", p, st.Mode())
			}
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(path + "*new*")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
