package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// original is a real state file with its witness, and what is in it.
type original struct {
	file, witness []byte
	objects       []string
	audit         []store.Entry
	revision      uint64
}

// makeOriginal fills a store with some hundred objects in many commits, some of them deleted again.
func makeOriginal(t testing.TB) original {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, path)
	const networks, perCommit = 400, 8
	for n := 0; n < networks; n += perCommit {
		var changes []link.Change
		for i := range perCommit {
			changes = append(changes, link.PutNetwork{Network: storetest.Network(n + i)})
		}
		if n > 0 {
			changes = append(changes, link.DeleteNetwork{ID: storetest.Network(n - 1).ID})
		}
		mustCommit(t, s, n, changes...)
	}
	o := original{revision: s.current.Load().Revision()}
	o.objects, o.audit = dump(t, s)
	mustClose(t, s)
	o.file, o.witness = readAll(t, path), readAll(t, path+witnessSuffix)
	return o
}

func readAll(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustCommit(t testing.TB, s *Store, n int, changes ...link.Change) *link.Snapshot {
	t.Helper()
	snap, err := s.Commit(t.Context(), s.current.Load(), storetest.Entry(n), changes...)
	if err != nil {
		t.Fatal("commit:", err)
	}
	return snap
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal("close:", err)
	}
}

func dump(t testing.TB, s *Store) (objects []string, audit []store.Entry) {
	t.Helper()
	for o := range s.current.Load().Objects() {
		rec, err := store.EncodeRecord(o)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, string(rec))
	}
	for e, err := range s.Audit(t.Context(), 0) {
		if err != nil {
			t.Fatal("audit:", err)
		}
		audit = append(audit, e)
	}
	return objects, audit
}

// putFiles writes a state file and, unless nil, its witness, and returns the path.
func putFiles(t testing.TB, file, witness []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if witness != nil {
		if err := os.WriteFile(path+witnessSuffix, witness, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// refusedOrSame opens a file and reports whether it was refused, as it must be unless it is as
// good as the original.
func (o original) refusedOrSame(t *testing.T, what string, file, witness []byte) bool {
	t.Helper()
	path := putFiles(t, file, witness)
	s, err := Open(path, Options{})
	if err != nil {
		if !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign) {
			t.Errorf("%s: refused as %v", what, err)
		}
		if !bytes.Equal(readAll(t, path), file) {
			t.Errorf("%s: refused, and changed", what)
		}
		return true
	}
	defer mustClose(t, s)
	objects, audit := dump(t, s)
	if s.current.Load().Revision() != o.revision || !slices.Equal(objects, o.objects) || !reflect.DeepEqual(audit, o.audit) {
		t.Errorf("%s: loaded, and not what was stored", what)
	}
	return false
}

func wantRefused(t *testing.T, path string, want error, says ...string) {
	t.Helper()
	before, statErr := os.ReadFile(path)
	s, err := Open(path, Options{})
	if err == nil {
		mustClose(t, s)
		t.Fatal("opened")
	}
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
	for _, word := range append(says, path, "postern restore", "start empty on purpose") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q doesn't say %q", err, word)
		}
	}
	after, err := os.ReadFile(path)
	if !bytes.Equal(before, after) || (statErr == nil) != (err == nil) {
		t.Error("the refused file was changed")
	}
}

func TestS02Empty(t *testing.T) {
	wantRefused(t, putFiles(t, nil, nil), store.ErrDamaged, "empty")
	wantRefused(t, putFiles(t, nil, makeOriginal(t).witness), store.ErrDamaged, "empty")
}

func TestS03Cut(t *testing.T) {
	o := makeOriginal(t)
	im, err := readImage(bytes.NewReader(o.file), int64(len(o.file)))
	if err != nil {
		t.Fatal(err)
	}
	used := int(im.meta.pages) * pageSize
	lengths := []int{1, 15, 16, 80, 4095, 4096, 4097, 8191, 8192, 8193, len(o.file) / 2, used - pageSize, used - 1, used, len(o.file) - 1}
	for n := range 40 {
		lengths = append(lengths, n*used/40)
	}
	for _, n := range lengths {
		if n > len(o.file) {
			continue
		}
		if refused := o.refusedOrSame(t, "cut", o.file[:n], o.witness); refused != (n < used) {
			t.Errorf("cut after %d bytes of %d, %d in use: refused %t", n, len(o.file), used, refused)
		}
	}
	for _, n := range []int{1, 512, pageSize, 2 * pageSize, 3 * pageSize, len(o.file) / 2} {
		if !o.refusedOrSame(t, "first bytes missing", o.file[n:], o.witness) {
			t.Errorf("first %d bytes missing: opened", n)
		}
		zeroed := bytes.Clone(o.file)
		clear(zeroed[:n])
		o.refusedOrSame(t, "first bytes zero", zeroed, o.witness)
	}
}

func TestS03Foreign(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	random := make([]byte, 1<<17)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	wantRefused(t, putFiles(t, random, nil), store.ErrForeign)
	wantRefused(t, putFiles(t, []byte("hello\n"), nil), store.ErrForeign)
	wantRefused(t, putFiles(t, []byte(strings.Repeat("{}\n", 9000)), nil), store.ErrForeign)
	wantRefused(t, putFiles(t, make([]byte, 1<<16), nil), store.ErrForeign)

	t.Run("bolt file of another program", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state")
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("users"))
			if err != nil {
				return err
			}
			return b.Put([]byte("k"), []byte("v"))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, path, store.ErrForeign)
	})
	t.Run("directory", func(t *testing.T) {
		if _, err := Open(t.TempDir(), Options{}); err == nil {
			t.Error("opened")
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if _, err := Open(filepath.Join(t.TempDir(), "no", "state"), Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v", err)
		}
	})
}

// TestS04Flips flips single bits: half of them anywhere, half of them in what bbolt itself
// follows, the meta pages and the heads of the other pages.
func TestS04Flips(t *testing.T) {
	const flips = 300
	o := makeOriginal(t)
	seed := rand.Uint64()
	t.Log("seed", seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	im, err := readImage(bytes.NewReader(o.file), int64(len(o.file)))
	if err != nil {
		t.Fatal(err)
	}
	used := int(im.meta.pages) * pageSize
	refused := 0
	for n := range flips {
		at := rng.IntN(used)
		switch n % 4 {
		case 0:
			at = at/pageSize*pageSize + rng.IntN(pageHead+4*elementSize)
		case 1:
			at = rng.IntN(2)*pageSize + rng.IntN(pageHead+64)
		}
		file := bytes.Clone(o.file)
		file[at] ^= 1 << rng.IntN(8)
		if o.refusedOrSame(t, "flip", file, o.witness) {
			refused++
		}
	}
	t.Logf("%d of %d refused, the others as good as the original", refused, flips)
	if refused < flips/4 {
		t.Errorf("only %d of %d flips were noticed: are they in the file?", refused, flips)
	}
}

// TestS04Meta: damage to the newer meta page makes bolt go on with the older one, a commit back.
func TestS04Meta(t *testing.T) {
	o := makeOriginal(t)
	newer := 0
	if binary.NativeEndian.Uint64(o.file[pageSize+pageHead+48:]) > binary.NativeEndian.Uint64(o.file[pageHead+48:]) {
		newer = 1
	}
	for _, c := range []struct {
		name    string
		page    int
		witness []byte
		refused bool
	}{
		{"the newer one", newer, o.witness, true},
		{"the newer one, no witness", newer, nil, true},
		{"the older one", 1 - newer, o.witness, false},
		{"the older one, no witness", 1 - newer, nil, true},
		{"the older one, damaged witness", 1 - newer, o.witness[1:], true},
		{"none", -1, o.witness, false},
		{"none, no witness", -1, nil, false},
		{"none, damaged witness", -1, o.witness[1:], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := bytes.Clone(o.file)
			if c.page >= 0 {
				file[c.page*pageSize+pageHead+50] ^= 4
			}
			if refused := o.refusedOrSame(t, c.name, file, c.witness); refused != c.refused {
				t.Errorf("refused: %t", refused)
			}
		})
	}
}

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

// FuzzImage overwrites bytes of a real file and cuts it: neither makes the walk panic or go on for ever.
func FuzzImage(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	s := mustOpen(f, path)
	for n := range 40 {
		mustCommit(f, s, n, link.PutNetwork{Network: storetest.Network(n)})
	}
	mustClose(f, s)
	original := readAll(f, path)
	f.Add(uint32(0), []byte{}, uint32(0))
	f.Add(uint32(pageSize+8), []byte{1, 0, 3, 0}, uint32(1))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, less uint32) {
		file := bytes.Clone(original)
		copy(file[int(at)%len(file):], patch)
		file = file[:len(file)-int(less)%len(file)]
		// A damaged meta page ends it early: with good checksums the numbers in it are used.
		for _, page := range []int{0, pageSize} {
			if len(file) >= page+pageSize {
				sum := fnv.New64a()
				sum.Write(file[page+pageHead : page+pageHead+56])
				binary.NativeEndian.PutUint64(file[page+pageHead+56:], sum.Sum64())
			}
		}
		im, err := readImage(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		r := reader{}
		if err := im.walk(r.element); err != nil {
			return
		}
		_, _ = r.finish() // may refuse, must return
	})
}
