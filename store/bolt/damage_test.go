package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
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
