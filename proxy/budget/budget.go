// Package budget finds out how much memory this process may use, and how much of it is used: what the control groups
// that it is in have set (cgroups(7), both versions), or else what the machine has.
//
// In a control group the kernel's memory counts too, that of sockets included, and a process that wants more than there
// is gets killed. So the data plane has to know the bound before it comes near.
package budget

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
)

// Memory is what this process may use. The zero Memory is none that is known.
type Memory struct {
	Limit int64  // bytes; 0: not known
	From  string // what sets the limit, for people

	group *group // that sets it; nil: the machine
}

// Bounded reports whether a control group bounds the memory, where the kernel kills who wants more.
func (m Memory) Bounded() bool { return m.group != nil }

// Used returns how many bytes of the control group's limit are used, without pages of files that the kernel would give
// up at once. It is only for a memory that is bounded.
func (m Memory) Used() (int64, error) {
	if m.group == nil {
		return 0, fmt.Errorf("no control group bounds the memory")
	}
	return m.group.used()
}

// group is a control group, by its directory.
type group struct {
	dir string
	of  *version
}

// version is what the files of a version of control groups are called.
type version struct {
	limits []string // each of which bounds the memory
	usage  string
	cached string // the word in memory.stat for pages of files that were not used lately
}

var (
	second = &version{[]string{"memory.max", "memory.high"}, "memory.current", "inactive_file"}
	first  = &version{[]string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"}
)

// maxText bounds what is read of any file of the kernel's.
const maxText = 1 << 20

// reader reads a file of the kernel's.
type reader func(name string) (string, error)

// find looks for the narrowest limit of the control groups that the process is in, then for the memory of the machine.
func find(read reader) Memory {
	best := Memory{}
	groups, err := read("/proc/self/cgroup")
	if err != nil {
		groups = ""
	}
	mounts, err := read("/proc/self/mountinfo")
	if err != nil {
		mounts = ""
	}
	for _, at := range places(groups, mounts) {
		for dir := at.dir; ; dir = path.Dir(dir) {
			for _, name := range at.of.limits {
				text, err := read(path.Join(dir, name))
				if n := limit(text); err == nil && n > 0 && (best.Limit == 0 || n < best.Limit) {
					best = Memory{n, path.Join(dir, name), &group{dir, at.of}}
				}
			}
			if dir == at.top || dir == "/" {
				break
			}
		}
	}
	info, err := read("/proc/meminfo")
	if n := kilobytes(info, "MemTotal:"); err == nil && n > 0 && (best.Limit == 0 || n < best.Limit) {
		best = Memory{Limit: n, From: "the machine"}
	}
	return best
}

// place is where a control group that the process is in can be looked at, and where its hierarchy ends.
type place struct {
	dir, top string
	of       *version
}

// places joins what /proc/self/cgroup (cgroups(7)) and /proc/self/mountinfo (proc_pid_mountinfo(5)) say.
func places(groups, mounts string) (all []place) {
	in := map[*version]string{}
	for line := range strings.Lines(groups) { // ID:CONTROLLERS:PATH
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(f) < 3 || !strings.HasPrefix(f[2], "/"):
		case f[0] == "0" && f[1] == "":
			in[second] = path.Clean(f[2])
		case has(f[1], "memory"):
			in[first] = path.Clean(f[2])
		}
	}
	for line := range strings.Lines(mounts) {
		root, top, of := mount(line)
		own, there := in[of]
		if of == nil || !there {
			continue
		}
		delete(in, of) // mounted more than once it is the same
		p := place{top, top, of}
		if rest, below := strings.CutPrefix(own, strings.TrimSuffix(root, "/")); below && (rest == "" || rest[0] == '/') {
			p.dir = path.Join(top, rest)
		} // else it is out of sight, and what is seen is the nearest
		all = append(all, p)
	}
	return all
}

// mount returns what a line of mountinfo says of a hierarchy that bounds memory: nil for any other.
func mount(line string) (root, top string, of *version) {
	left, right, ok := strings.Cut(line, " - ")
	f, kind := strings.Fields(left), strings.Fields(right)
	if !ok || len(f) < 5 || len(kind) < 3 || !strings.HasPrefix(f[4], "/") {
		return "", "", nil
	}
	switch {
	case kind[0] == "cgroup2":
		of = second
	case kind[0] == "cgroup" && has(kind[2], "memory"):
		of = first
	}
	return path.Clean(f[3]), path.Clean(f[4]), of
}

func has(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// limit returns the bytes that a file says. 0: none, "max", or so many that it isn't one.
func limit(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/2 {
		return 0
	}
	return n
}

// kilobytes returns the bytes that a line of /proc/meminfo says, 0 where there is none.
func kilobytes(text, word string) int64 {
	return min(number(text, word), math.MaxInt64>>10) << 10
}

// number returns the number behind a word at the begin of a line, 0 where there is none.
func number(text, word string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == word {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil || n < 0 {
				return 0
			}
			return n
		}
	}
	return 0
}

// used reads the usage, and of memory.stat what may be taken off it.
func (g *group) used() (int64, error) {
	text, err := readFile(path.Join(g.dir, g.of.usage))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path.Join(g.dir, g.of.usage), err)
	}
	if text, err = readFile(path.Join(g.dir, "memory.stat")); err != nil {
		return 0, err
	}
	return max(n-number(text, g.of.cached), 0), nil
}
