package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// refused makes a state file that Open refuses.
func refused(t *testing.T, damage func(path string) error) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "state")
	if _, err := stateOf(path, 2); err != nil {
		t.Fatal(err)
	}
	if err := damage(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign) {
		t.Fatalf("open: %v", err)
	}
	return path
}

var damages = map[string]func(path string) error{
	"cut": func(path string) error { return os.Truncate(path, pageSize) },
	"cut, no witness": func(path string) error {
		return errors.Join(os.Truncate(path, pageSize), os.Remove(path+witnessSuffix))
	},
	"gone": os.Remove,
}

// contentsOf returns the files of a directory by name.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all[e.Name()] = string(readAll(t, filepath.Join(dir, e.Name())))
	}
	return all
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		names := func(m map[string]string) (s []string) {
			for name, b := range m {
				s = append(s, fmt.Sprintf("%s (%d bytes)", name, len(b)))
			}
			return s
		}
		t.Errorf("files %v, want %v, unchanged", names(got), names(want))
	}
}

func fillOne(s *Store) error {
	_, err := s.Commit(context.Background(), s.current.Load(), storetest.Entry(7), link.PutNetwork{Network: storetest.Network(7)})
	return err
}

func TestReplace(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			path := refused(t, damage)
			damaged, _ := os.ReadFile(path) // none where it is gone
			witness, _ := os.ReadFile(path + witnessSuffix)
			aside, err := Replace(path, at, fillOne)
			if err != nil {
				t.Fatal(err)
			}
			if kept, _ := os.ReadFile(aside); !bytes.Equal(kept, damaged) {
				t.Error("the file set aside isn't the damaged one")
			}
			if kept, _ := os.ReadFile(aside + witnessSuffix); !bytes.Equal(kept, witness) {
				t.Error("the witness set aside isn't the damaged file's")
			}
			if left, err := filepath.Glob(path + "*new*"); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if _, err := Replace(path, at.Add(1), fillOne); !errors.Is(err, store.ErrLocked) {
				t.Errorf("a sound file: %v, want ErrLocked", err)
			}
			s := mustOpen(t, path)
			if got := s.current.Load(); got.Revision() != 1 || got.Network(storetest.Network(7).ID) == nil {
				t.Errorf("revision %d", got.Revision())
			}
			mustClose(t, s)
		})
	}
}

// TestReplaceFails: after any failure the files are those that were there.
func TestReplaceFails(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const aside = ".damaged-20260102T030405.000Z"
	taken := func(suffix string) func(string) error {
		return func(path string) error { return os.WriteFile(path+aside+suffix, nil, 0o600) }
	}
	full := func(*Store) error { return unix.ENOSPC }
	for _, c := range []struct {
		name, damage string
		prepare      func(path string) error
		fill         func(*Store) error
		want         error
	}{
		{"no room for the new state", "cut", nil, full, unix.ENOSPC},
		{"no room, the old one is gone", "gone", nil, full, unix.ENOSPC},
		{"name of the old witness is taken", "cut", taken(witnessSuffix), fillOne, os.ErrExist},
		{"name of the old file is taken", "cut", taken(""), fillOne, os.ErrExist},
		{"name of the old file is taken, no witness", "cut, no witness", taken(""), fillOne, os.ErrExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := refused(t, damages[c.damage])
			if c.prepare != nil {
				if err := c.prepare(path); err != nil {
					t.Fatal(err)
				}
			}
			before := contentsOf(t, filepath.Dir(path))
			if _, err := Replace(path, at, c.fill); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			sameFiles(t, contentsOf(t, filepath.Dir(path)), before)
			if _, err := Open(path, Options{}); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("open: %v; want what it was", err)
			}
		})
	}
}

// TestReplaceCrash: between any two steps of takePlace Open refuses what it finds, and Replace still can.
func TestReplaceCrash(t *testing.T) {
	for name, damage := range damages {
		for steps := range 3 {
			t.Run(fmt.Sprint(name, " after step ", steps+1), func(t *testing.T) {
				path := refused(t, damage)
				aside := path + ".damaged-x"
				fresh, err := prepare(path, fillOne)
				if err != nil {
					t.Fatal(err)
				}
				_, err = keepWitness(path, aside)
				if steps > 0 {
					err = errors.Join(err, os.Rename(fresh+witnessSuffix, path+witnessSuffix))
				}
				if steps > 1 && name != "gone" {
					err = errors.Join(err, renameNew(path, aside))
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Open(path, Options{}); !errors.Is(err, store.ErrDamaged) {
					t.Errorf("open: %v, want ErrDamaged", err)
				}
				if _, err := Replace(path, time.Now(), fillOne); err != nil {
					t.Fatal("again:", err)
				}
				mustClose(t, mustOpen(t, path))
				if left, err := filepath.Glob(path + "*new*"); err != nil || len(left) != 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			})
		}
	}
}
