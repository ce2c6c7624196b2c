//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// A server that has a share of its core gets sharePart of each sharePeriod, in microseconds. Both are as short as the kernel has them (a
// quota is at least a millisecond), so that few queries wait in between.
const (
	sharePart   = 1000
	sharePeriod = 4000
)

// shareName is how the groups are named, with the process ID of the benchmark.
const shareName = "postern-bench-%d"

// share is a control group in which processes have a part of a core's time.
type share struct{ dir string }

// newShare makes one in whichever hierarchy has the controller of CPU time (cgroups(7)).
func newShare() (*share, error) {
	dir := filepath.Join("/sys/fs/cgroup/cpu", fmt.Sprintf(shareName, os.Getpid()))
	quota := map[string]string{"cpu.cfs_period_us": strconv.Itoa(sharePeriod), "cpu.cfs_quota_us": strconv.Itoa(sharePart)}
	if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, os.ErrNotExist) { // version 2
		root := "/sys/fs/cgroup"
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
			return nil, err
		}
		dir = filepath.Join(root, filepath.Base(dir))
		quota = map[string]string{"cpu.max": fmt.Sprintf("%d %d", sharePart, sharePeriod)}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	s := &share{dir}
	for name, value := range quota {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// removeShares removes the groups that benchmarks have left which were killed. One whose process ID is somebody's is left alone, and so is one that
// still has processes, which the kernel keeps.
func removeShares(roots ...string) {
	for _, root := range roots {
		left, _ := filepath.Glob(filepath.Join(root, "postern-bench-*")) // the pattern is well-formed
		for _, dir := range left {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(dir), shareName, &pid); err != nil || fmt.Sprintf(shareName, pid) != filepath.Base(dir) || pid <= 0 {
				continue
			}
			if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				_ = syscall.Rmdir(dir)
			}
		}
	}
}

// startPart is start for a server that has a part of its core where part is so. Beside the server it returns what stops it.
func (b *bench) startPart(s server, part bool) (p *process, stop func() error, err error) {
	on := *b
	if part {
		if on.share, err = newShare(); err != nil {
			return nil, nil, err
		}
	}
	if p, err = on.start(s); err != nil {
		return nil, nil, errors.Join(err, on.share.close())
	}
	return p, func() error { p.stop(); return on.share.close() }, nil
}

// of returns a command line that runs in the group from its beginning, with all that it starts.
func (s *share) of(args []string) []string {
	if s == nil {
		return args
	}
	return append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(s.dir, "cgroup.procs")}, args...)
}

// close removes the group. Who is in it has a second to end: a server's children outlive it for a moment.
func (s *share) close() error {
	if s == nil {
		return nil
	}
	var err error
	for range 100 {
		if err = syscall.Rmdir(s.dir); !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
