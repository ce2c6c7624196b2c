package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postern-link/postern/link"
)

func backup(t testing.TB, networks int) (*link.Snapshot, []byte) {
	t.Helper()
	s := link.Empty()
	for n := range networks {
		var err error
		s, _, err = s.Apply(when, link.PutNetwork{Network: link.Network{
			ID:       link.ID(fmt.Sprintf("net-%d", n)),
			Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 24)},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := WriteBackup(t.Context(), &b, s, when); err != nil {
		t.Fatal(err)
	}
	return s, b.Bytes()
}

func TestBackupRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 20} {
		s, file := backup(t, n)
		revision, objects, err := ReadBackup(iotest.OneByteReader(bytes.NewReader(file)))
		if err != nil || revision != s.Revision() {
			t.Fatalf("%d networks: revision %d, %v", n, revision, err)
		}
		var want []link.Object
		for o := range s.Objects() {
			want = append(want, o)
		}
		if !reflect.DeepEqual(objects, want) {
			t.Errorf("%d networks: %v, want %v", n, objects, want)
		}
	}
}

// TestBackupCut: a backup cut at any length is refused; so is one with more at its end.
func TestBackupCut(t *testing.T) {
	_, file := backup(t, 3)
	for n := range file {
		if _, objects, err := ReadBackup(bytes.NewReader(file[:n])); !isRefusal(err) || objects != nil {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	if _, _, err := ReadBackup(strings.NewReader(string(file) + "\n")); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: %v", err)
	}
	if _, _, err := ReadBackup(strings.NewReader(string(file) + string(file))); !errors.Is(err, ErrDamaged) {
		t.Errorf("twice: %v", err)
	}
}

func TestBackupFlipped(t *testing.T) {
	_, file := backup(t, 2)
	for i := range len(file) * 8 {
		file[i/8] ^= 1 << (i % 8)
		if _, objects, err := ReadBackup(bytes.NewReader(file)); !isRefusal(err) || objects != nil {
			t.Fatalf("bit %d flipped: %v", i, err)
		}
		file[i/8] ^= 1 << (i % 8)
	}
}

func TestBackupForeign(t *testing.T) {
	for _, c := range []struct{ name, file string }{
		{"empty", ""},
		{"an empty line", "\n"},
		{"text", "hello\nworld\n"},
		{"JSON of another program", `{"kind":"List","items":[]}` + "\n"},
		{"newer format", `{"magic":"postern backup","format":2,"revision":1,"time":"2026-01-02T03:04:05Z","codec":"zstd"}` + "\n"},
		{"a line without end", strings.Repeat("x", maxBackupLine+1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := ReadBackup(strings.NewReader(c.file)); !errors.Is(err, ErrForeign) {
				t.Errorf("%v, want ErrForeign", err)
			}
		})
	}
}

func TestBackupErrors(t *testing.T) {
	s, file := backup(t, 2)
	broken := errors.New("broken")
	if _, _, err := ReadBackup(io.MultiReader(bytes.NewReader(file[:90]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("read: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if err := WriteBackup(ctx, io.Discard, s, when); !errors.Is(err, broken) {
		t.Errorf("done context: %v", err)
	}
}

func isRefusal(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign) }

// FuzzReadBackup: whatever the bytes are, the answer is a backup or one of our errors.
func FuzzReadBackup(f *testing.F) {
	for _, n := range []int{0, 2} {
		_, file := backup(f, n)
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		_, objects, err := ReadBackup(bytes.NewReader(file))
		if err != nil && (!isRefusal(err) || objects != nil) {
			t.Fatalf("%d objects and error %v", len(objects), err)
		}
	})
}
