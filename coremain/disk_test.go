package coremain

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/bolt"
	"github.com/postern-link/postern/store/storetest"
)

// onDisk is set for the test binary that runs one test again, in a mount namespace of its own.
const onDisk = "POSTERN_TEST_ON_DISK"

// inNamespace runs the test again in a mount namespace and returns false, or returns true there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(onDisk) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), onDisk+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM) && os.Getenv("CI") == "":
		t.Skip("mount namespaces aren't allowed here")
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// smallDisk mounts a disk of 1 MiB that holds a copy of the files of dir.
func smallDisk(t *testing.T, dir string) (disk string) {
	t.Helper()
	disk = t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.CopyFS(disk, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return disk
}

// fill takes the last page of a disk.
func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(disk, "filler"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 1<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v, want ENOSPC", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// files returns the names in a directory, but for the filler and the socket of a node.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "filler" && !strings.HasSuffix(e.Name(), ".sock") {
			names = append(names, e.Name())
		}
	}
	return names
}

// bigBackup makes a backup that no disk of 1 MiB has room for once it is full.
func bigBackup(t *testing.T) string {
	t.Helper()
	s, err := bolt.Open(filepath.Join(t.TempDir(), "big.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var changes []link.Change
	for n := range 500 {
		changes = append(changes, link.PutNetwork{Network: storetest.Network(n)})
	}
	base, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), base, storetest.Entry(1), changes...); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := errors.Join(s.Backup(t.Context(), &b), s.Close()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "big.backup")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestS05FullDisk: on a full disk a node starts, a backup is made, and a restore that finds no room leaves the
// state as it was. A backup works where nothing can be written at all.
func TestS05FullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	port := freePort(t)
	s := startServer(t, corefileText(port, "192.0.2.1"), port)
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	disk := smallDisk(t, filepath.Dir(s.conf))
	state := filepath.Join(disk, "postern.db")
	elsewhere := t.TempDir()
	run := func(want int, contains string, args ...string) {
		t.Helper()
		code, stdout, stderr := result(t, elsewhere, args...)
		if code != want || !strings.Contains(stdout+stderr, contains) {
			t.Errorf("postern %v: code %d, want %d and %q\n%s%s", args, code, want, contains, stdout, stderr)
		}
	}
	run(0, "revision 1, 1 object", "backup", "-state", state, "-o", "first.backup")
	big := bigBackup(t)
	damaged := filepath.Join(disk, "damaged.db")
	if err := os.WriteFile(damaged, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	fill(t, disk)
	before := files(t, disk)

	s = startIn(t, disk, port)
	s.answers("192.0.2.1")
	run(1, "no space left", "restore", "-replace", "-state", state, big)
	run(0, "revision 1, 1 object", "backup", "-state", state, "-o", "second.backup")
	s.signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
	fill(t, disk)
	run(1, "no space left", "restore", "-replace", "-state", state, big)
	run(0, "revision 1, 1 object", "backup", "-state", state, "-o", "third.backup")
	run(1, "no space left", "backup", "-state", state, "-o", filepath.Join(disk, "beside.backup"))
	run(1, "no space left", "restore", "-replace", "-state", damaged, "first.backup")
	run(1, "not a state of this program", "restore", "-state", damaged, "first.backup") // it isn't an empty one now
	if after := files(t, disk); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("files %v, want %v", after, before)
	}
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	run(0, "revision 1, 1 object", "backup", "-state", state, "-o", "fourth.backup")
}
