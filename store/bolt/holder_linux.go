package bolt

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holder names the process that has the lock of f, as well as it can be known.
func holder(f *os.File, path string) string {
	if pid := lockOwner(f); pid > 0 {
		return describe(pid)
	}
	// The kernel shows 0 for a process of another PID namespace; the witness has its own view.
	if w, err := readWitness(path); err == nil && w != nil {
		return fmt.Sprintf("process %d (as it numbers itself)", w.PID)
	}
	return "another process"
}

func describe(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%q)", pid, strings.TrimSpace(string(name)))
}

// lockOwner looks for the file in /proc/locks, see proc_locks(5):
//
//	1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
func lockOwner(f *os.File) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	table, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer table.Close()
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	exact := fmt.Sprintf("%02x:%02x%s", unix.Major(st.Dev), unix.Minor(st.Dev), inode)
	likely := 0 // the inode alone matches: stacked file systems show another device than stat does
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], inode) {
			continue
		}
		pid, err := strconv.Atoi(fields[4])
		switch {
		case err != nil:
		case fields[5] == exact:
			return pid
		default:
			likely = pid
		}
	}
	return likely
}
