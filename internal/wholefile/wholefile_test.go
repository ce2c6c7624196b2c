package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// names returns what is in a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestWritten(t *testing.T) {
	t.Parallel()
	failed := errors.New("the disk is full")
	fails := func(f *os.File) error { return errors.Join(failed, Text([]byte("ne"))(f)) }
	for _, c := range []struct {
		name  string
		write func(string, fs.FileMode, func(*os.File) error) error
		there bool
		fill  func(*os.File) error
		err   error
		want  string
	}{
		{"created", Create, false, Text([]byte("new")), nil, "new"},
		{"not created twice", Create, true, Text([]byte("new")), fs.ErrExist, "old"},
		{"replaced", Replace, true, Text([]byte("new")), nil, "new"},
		{"replaced nothing", Replace, false, Text([]byte("new")), nil, "new"},
		{"not filled", Replace, true, fails, failed, "old"},
		{"not filled, new", Create, false, fails, failed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			if c.there {
				if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.write(path, 0o646, c.fill); !errors.Is(err, c.err) { // 0646: more than a umask leaves
				t.Fatalf("error %v, want %v", err, c.err)
			}
			got, err := os.ReadFile(path)
			if string(got) != c.want || err != nil && c.want != "" {
				t.Errorf("the file has %q (%v), want %q", got, err, c.want)
			}
			if c.want == "new" {
				if info, err := os.Stat(path); err != nil || info.Mode() != 0o646 {
					t.Errorf("mode %v (%v), want 0646", info.Mode(), err)
				}
			}
			if left := names(t, dir); left != "file" && left != "" {
				t.Errorf("the directory has %q", left)
			}
		})
	}
}

// TestNotRenamed: what can't have its name isn't left behind.
func TestNotRenamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "file", "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "file"), 0o600, Text(nil)); err == nil {
		t.Error("a file took the place of a directory")
	}
	if left := names(t, dir); left != "file" {
		t.Errorf("the directory has %q", left)
	}
}

// TestReaders: who opens a file that is replaced again and again reads one text or the other.
func TestReaders(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	a, b := strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<16)
	if err := Create(path, 0o600, Text([]byte(a))); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 100 {
			if err := Replace(path, 0o600, Text([]byte([]string{a, b}[i%2]))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		got, err := os.ReadFile(path)
		if s := string(got); err != nil || s != a && s != b {
			t.Fatalf("%d bytes (%v)", len(got), err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}
