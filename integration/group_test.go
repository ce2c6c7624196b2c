package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// memoryGroup is a control group of the test's own that counts the memory of what runs in it, the kernel's for it included.
type memoryGroup struct {
	dir string
	v2  bool
}

// newMemoryGroup makes a control group with a limit. It returns nil where none can be made.
func newMemoryGroup(t *testing.T, limit int) *memoryGroup {
	t.Helper()
	g := findMemoryGroup()
	if g == nil {
		return nil
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Logf("no control group can be made: %v", err)
		return nil
	}
	t.Cleanup(func() {
		var err error
		for range 100 { // a process that was killed leaves it a little later
			if err = os.Remove(g.dir); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error(err)
	})
	file := "memory.limit_in_bytes"
	if g.v2 {
		file = "memory.max"
	}
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.Itoa(limit)), 0o644); err != nil {
		t.Logf("no limit can be set: %v", err)
		return nil
	}
	return g
}

// findMemoryGroup returns where a control group for memory can be, nil where that isn't known.
func findMemoryGroup() *memoryGroup {
	name := fmt.Sprint("postern-test-", os.Getpid())
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); err == nil && strings.Contains(string(b), "memory") {
		return &memoryGroup{filepath.Join("/sys/fs/cgroup", name), true}
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "memory" {
			return &memoryGroup{filepath.Join("/sys/fs/cgroup/memory", f[2], name), false}
		}
	}
	return nil
}

// used returns the bytes that the group has, without what the kernel would give up at once: pages of files.
func (g *memoryGroup) used(t *testing.T) int {
	t.Helper()
	usage, cached := "memory.usage_in_bytes", "total_inactive_file"
	if g.v2 {
		usage, cached = "memory.current", "inactive_file"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, usage))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n - number(t, filepath.Join(g.dir, "memory.stat"), cached)
}

// kills returns how many processes the kernel has killed in the group for want of memory.
func (g *memoryGroup) kills(t *testing.T) int {
	t.Helper()
	if g.v2 {
		return number(t, filepath.Join(g.dir, "memory.events"), "oom_kill")
	}
	return number(t, filepath.Join(g.dir, "memory.oom_control"), "oom_kill")
}

// number returns the number behind a word at the begin of a line of a file.
func number(t *testing.T, file, word string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == word {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s says nothing of %s", file, word)
	return 0
}
