package budget

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
)

const (
	mounts2 = "24 1 0:22 / /proc rw - proc proc rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	mounts1 = "33 32 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n34 32 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"43 32 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	inside   = "33 32 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
	meminfo  = "MemTotal:       2048 kB\nMemFree:          12 kB\n"
	machine  = 2 << 20
	no1Limit = "9223372036854771712\n"
)

// P11: the narrowest limit counts, of whatever control group that the process is in.
func TestFind(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
		from  string
	}{
		"nothing":      {nil, 0, ""},
		"machine only": {map[string]string{"/proc/meminfo": meminfo}, machine, "the machine"},
		"second version": {map[string]string{"/proc/self/cgroup": "0::/system.slice/postern.service\n", "/proc/self/mountinfo": mounts2, "/proc/meminfo": meminfo,
			"/sys/fs/cgroup/system.slice/postern.service/memory.max": "1048576\n"}, 1 << 20, "/sys/fs/cgroup/system.slice/postern.service/memory.max"},
		"of a group above": {map[string]string{"/proc/self/cgroup": "0::/a/b\n", "/proc/self/mountinfo": mounts2, "/proc/meminfo": meminfo,
			"/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/memory.max": "900000\n"}, 900000, "/sys/fs/cgroup/a/memory.max"},
		"memory.high is narrower": {map[string]string{"/proc/self/cgroup": "0::/a\n", "/proc/self/mountinfo": mounts2,
			"/sys/fs/cgroup/a/memory.max": "900000\n", "/sys/fs/cgroup/a/memory.high": "800000\n"}, 800000, "/sys/fs/cgroup/a/memory.high"},
		"a container sees its group as the root": {map[string]string{"/proc/self/cgroup": "0::/\n", "/proc/self/mountinfo": mounts2,
			"/sys/fs/cgroup/memory.max": "700000\n"}, 700000, "/sys/fs/cgroup/memory.max"},
		"first version": {map[string]string{"/proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x/y\n0::/\n", "/proc/self/mountinfo": mounts1,
			"/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes": "600000\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": no1Limit}, 600000,
			"/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes"},
		"first version, out of sight": {map[string]string{"/proc/self/cgroup": "4:memory:/other\n", "/proc/self/mountinfo": inside,
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n"}, 500000, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"first version, of a container": {map[string]string{"/proc/self/cgroup": "4:memory:/docker/abc/sub\n", "/proc/self/mountinfo": inside,
			"/sys/fs/cgroup/memory/sub/memory.limit_in_bytes": "400000\n"}, 400000, "/sys/fs/cgroup/memory/sub/memory.limit_in_bytes"},
		"no limit is the machine's": {map[string]string{"/proc/self/cgroup": "4:memory:/\n", "/proc/self/mountinfo": mounts1, "/proc/meminfo": meminfo,
			"/sys/fs/cgroup/memory/memory.limit_in_bytes": no1Limit}, machine, "the machine"},
		"more than the machine has": {map[string]string{"/proc/self/cgroup": "0::/a\n", "/proc/self/mountinfo": mounts2, "/proc/meminfo": meminfo,
			"/sys/fs/cgroup/a/memory.max": "4194304\n"}, machine, "the machine"},
		"nonsense": {map[string]string{"/proc/self/cgroup": "0::\n:::\n0::a\n", "/proc/self/mountinfo": "x - cgroup2\n- - -\n", "/proc/meminfo": "MemTotal: -5 kB\n"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := find(func(name string) (string, error) {
				if text, there := test.files[name]; there {
					return text, nil
				}
				return "", fs.ErrNotExist
			})
			if m.Limit != test.want || m.From != test.from {
				t.Errorf("%d of %q, want %d of %q", m.Limit, m.From, test.want, test.from)
			}
			if bounded := strings.HasPrefix(test.from, "/"); m.Bounded() != bounded {
				t.Errorf("bounded %v", m.Bounded())
			}
		})
	}
}

// The files of a group, as the kernel writes them.
func TestUsed(t *testing.T) {
	for name, test := range map[string]struct {
		of          *version
		usage, stat string
		want        int64
		fails       bool
	}{
		"second version":               {second, "1000\n", "anon 700\ninactive_file 300\nactive_file 5\n", 700, false},
		"first version":                {first, "1000\n", "inactive_file 1\ntotal_inactive_file 400\n", 600, false},
		"read one after the other":     {second, "100\n", "inactive_file 300\n", 0, false},
		"nothing about files":          {second, "100\n", "", 100, false},
		"usage that isn't a number":    {second, "max\n", "", 0, true},
		"first version without a stat": {first, "", "", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{test.of.usage: test.usage, "memory.stat": test.stat} {
				if err := os.WriteFile(dir+"/"+file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Memory{Limit: 1, group: &group{dir, test.of}}.Used()
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("%d, error %v", got, err)
			}
		})
	}
	if _, err := (Memory{Limit: 1, group: &group{t.TempDir(), second}}).Used(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group that is gone: %v", err)
	}
	if _, err := (Memory{Limit: 1}).Used(); err == nil {
		t.Error("the machine's memory isn't a group's")
	}
}

// The machine of this test has memory, and what is used of a group is less than its limit.
func TestFindHere(t *testing.T) {
	m := Find()
	if m.Limit <= 0 {
		t.Skip("the memory isn't known here")
	}
	if m.Bounded() {
		if used, err := m.Used(); err != nil || used <= 0 || used > m.Limit {
			t.Errorf("used %d of %d, error %v", used, m.Limit, err)
		}
	}
}

// What others have isn't the runtime's, and what the operator has set stays. In a process of its own, since the limit is the
// process's.
func TestSoften(t *testing.T) {
	if os.Getenv("POSTERN_TEST_SOFTEN") == "" {
		for _, limit := range []string{"", "123MiB"} {
			c := exec.Command(os.Args[0], "-test.run=^TestSoften$")
			c.Env = append(os.Environ(), "POSTERN_TEST_SOFTEN=1", "GOMEMLIMIT="+limit)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("GOMEMLIMIT=%q: %v\n%s", limit, err, out)
			}
		}
		return
	}
	bounded := Memory{Limit: 1 << 30, group: &group{"/", second}}
	percent := func(n int64) int64 { return bounded.Limit / 100 * n }
	for _, step := range []struct{ others, want int64 }{{0, percent(80)}, {percent(1), percent(80)}, {percent(30), percent(50)}, {percent(60), percent(35)}, {percent(200), percent(35)}} {
		want, near := step.want, own()/4+1<<20 // what the runtime has isn't still
		if os.Getenv("GOMEMLIMIT") != "" {
			want, near = 123<<20, 0
		}
		got := bounded.Soften(own() + step.others)
		if got < want-near || got > want+near || got != debug.SetMemoryLimit(-1) {
			t.Errorf("others have %d: %d, in force %d, want %d", step.others, got, debug.SetMemoryLimit(-1), want)
		}
	}
}

// Without a control group nothing is set.
func TestSoftenNothing(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	Memory{Limit: 1 << 20}.Soften(0)
	if now := debug.SetMemoryLimit(-1); now != before {
		t.Errorf("%d, before %d", now, before)
	}
}

// What is found is a directory below the mount, whatever the kernel's files say.
func FuzzPlaces(f *testing.F) {
	f.Add("0::/a/b\n4:memory:/x\n", mounts1+mounts2)
	f.Add("4:memory:/docker/abc/sub\n", inside)
	f.Add("0::/../..\n", mounts2)
	f.Add("0::/a", "1 1 0:1 /a/b /m rw - cgroup2 x rw")
	f.Fuzz(func(t *testing.T, groups, mounts string) {
		all := places(groups, mounts)
		if len(all) > 2 {
			t.Errorf("%d places", len(all))
		}
		for _, p := range all {
			if p.dir != p.top && !strings.HasPrefix(p.dir, strings.TrimSuffix(p.top, "/")+"/") {
				t.Errorf("%q isn't below %q", p.dir, p.top)
			}
		}
		find(func(string) (string, error) { return groups + mounts, nil }) // ends
	})
}
