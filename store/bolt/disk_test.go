package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/storetest"
)

// TestS05 runs children that mount a file system, each in a mount namespace of its own.
func TestS05(t *testing.T) {
	for what := range diskChildren {
		t.Run(what, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("mounting a file system needs root")
			}
			cmd := child(t, what, t.TempDir())
			cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
			if out, err := cmd.Output(); errors.Is(err, unix.EPERM) && os.Getenv("CI") == "" {
				t.Skip("mount namespaces aren't allowed here")
			} else if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// diskChildren are the tests on a disk of 1 MiB. Each gets its empty directory.
var diskChildren = map[string]func(dir string) error{
	"commit on a full disk": childFull,
	"open on a full disk":   childOpenFull,
	"read without writing":  childRead,
}

// mountDisk mounts a file system of 1 MiB on dir.
func mountDisk(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
}

// fill fills the disk at dir to its last page, again if need be, and returns the file that it's in.
func fill(dir string) (string, error) {
	filler := filepath.Join(dir, "filler")
	f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(make([]byte, 1<<20))
	if err := f.Close(); err != nil {
		return "", err
	}
	if !errors.Is(err, unix.ENOSPC) {
		return "", fmt.Errorf("filling the disk: %v, want ENOSPC", err)
	}
	return filler, nil
}

// childFull lets the disk run full under a store, and makes space again.
func childFull(dir string) error {
	if err := mountDisk(dir); err != nil {
		return err
	}
	ctx, path := context.Background(), filepath.Join(dir, "state")
	reg := prometheus.NewRegistry()
	s, err := Open(path, Options{Registerer: reg})
	if err != nil {
		return err
	}
	filler, err := fill(dir)
	if err != nil {
		return err
	}
	refused := 0
	for n := range 200 {
		snap, err := s.Commit(ctx, s.current.Load(), storetest.Entry(n), link.PutNetwork{Network: storetest.Network(n)})
		if told := writable(reg, err == nil); told != nil {
			return fmt.Errorf("commit %d: %w", n, told)
		}
		if err == nil {
			continue // found room in the file
		}
		refused++
		if !errors.Is(err, unix.ENOSPC) || errors.Is(err, store.ErrUnknownOutcome) || snap != nil || s.Err() != nil {
			return fmt.Errorf("commit on a full disk: %w; the store says %v", err, s.Err())
		}
		if got := s.current.Load().Network(storetest.Network(n).ID); got != nil {
			return fmt.Errorf("a refused network is there")
		}
	}
	if refused == 0 {
		return errors.New("the disk is full and no commit noticed")
	}
	// What a rule refuses says nothing of the disk.
	_, err = s.Commit(ctx, s.current.Load(), storetest.Entry(998), link.DeleteNetwork{ID: "no-such"})
	if told := writable(reg, false); err == nil || told != nil {
		return fmt.Errorf("a commit that isn't allowed: %v, %w", err, told)
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	want, err := s.Commit(ctx, s.current.Load(), storetest.Entry(999), link.PutNetwork{Network: storetest.Network(999)})
	if err != nil {
		return fmt.Errorf("commit with room again: %w", err)
	}
	if err := writable(reg, true); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(path, Options{}); err != nil {
		return err
	}
	if got := s.current.Load(); got.Revision() != want.Revision() || got.Network(storetest.Network(999).ID) == nil {
		return fmt.Errorf("revision %d after reopening, want %d", got.Revision(), want.Revision())
	}
	return s.Close()
}

// writable returns an error unless the metric says so.
func writable(reg prometheus.Gatherer, want bool) error {
	families, err := reg.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if f.GetName() != "postern_store_writable" {
			continue
		}
		if got := f.GetMetric()[0].GetGauge().GetValue() == 1; got != want {
			return fmt.Errorf("postern_store_writable says %t", got)
		}
		return nil
	}
	return errors.New("no metric postern_store_writable")
}

// swap puts the file at with, opened with flags, in the place of the store's descriptor of its own file.
func swap(t *testing.T, path, with string, flags int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != path {
			continue
		}
		var old int
		if _, err := fmt.Sscan(e.Name(), &old); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(with, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Dup3(fd, old, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the store has no descriptor of its file")
}

// S08: what isn't a full disk ends writing until the store is opened again; reading goes on.
func TestS08NoMoreWrites(t *testing.T) {
	for _, c := range []struct {
		name, with string // with: "" is the state file itself
		flags      int
		want       error
	}{
		{"file can't be written", "", unix.O_RDONLY, unix.EBADF},
		{"fsync fails", os.DevNull, unix.O_RDWR, unix.EINVAL}, // takes all writes, can't be synced
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			reg := prometheus.NewRegistry()
			s, err := Open(path, Options{Registerer: reg})
			if err != nil {
				t.Fatal(err)
			}
			want := mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
			with := c.with
			if with == "" {
				with = path
			}
			swap(t, path, with, c.flags)
			_, err = s.Commit(t.Context(), want, storetest.Entry(2), link.PutNetwork{Network: storetest.Network(2)})
			if !errors.Is(err, c.want) || errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("commit: %v, want %v", err, c.want)
			}
			_, err = s.Commit(t.Context(), want, storetest.Entry(3), link.PutNetwork{Network: storetest.Network(3)})
			if !errors.Is(err, errReopen) || s.Err() == nil {
				t.Errorf("next commit: %v, health %v; want a refusal", err, s.Err())
			}
			if err := writable(reg, false); err != nil {
				t.Error(err)
			}
			if got, err := s.Load(t.Context()); err != nil || got != want {
				t.Errorf("load: %v, %v", got, err)
			}
			var seen []uint64
			var last error
			for e, err := range s.Audit(t.Context(), 0) {
				if last = err; err == nil {
					seen = append(seen, e.Revision)
				}
			}
			if len(seen) != 1 || !errors.Is(last, errReopen) {
				t.Errorf("audit yields %v, then %v", seen, last)
			}
			_ = s.Close() // unlocking the wrong descriptor may fail
			s = mustOpen(t, path)
			if got := s.current.Load().Revision(); got != 1 {
				t.Errorf("revision %d after reopening, want 1", got)
			}
			mustCommit(t, s, 4, link.PutNetwork{Network: storetest.Network(4)})
			mustClose(t, s)
		})
	}
}

// TestUnknownOutcome: the meta page is in the file, and syncing it failed.
func TestUnknownOutcome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, path)
	base := mustCommit(t, s, 1, link.PutNetwork{Network: storetest.Network(1)})
	// The store remembers a commit less than the file shows, as after a meta page that came
	// through before the error.
	s.anchor.Revision--
	swap(t, path, os.DevNull, unix.O_RDWR)
	_, err := s.Commit(t.Context(), base, storetest.Entry(2), link.PutNetwork{Network: storetest.Network(2)})
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("%v, want ErrUnknownOutcome", err)
	}
	_, _, err = store.Find(t.Context(), s, "some ID", 1)
	if !errors.Is(err, store.ErrUnknownOutcome) || !strings.Contains(err.Error(), "opened again") {
		t.Errorf("find: %v; a store that can't know must not say that it found nothing", err)
	}
	_ = s.Close()
}
