//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on every architecture that we build for.
const tick = 10 * time.Millisecond

// tree returns pid and the processes below it, so that a server with workers is counted whole.
func tree(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pids[i]))
		if err != nil {
			continue // it ended meanwhile
		}
		for _, t := range tasks {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pids[i], t.Name()))
			for f := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(f); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}

// cpuTime returns the CPU time, user and system, that the processes have used. One that has ended
// counts as nothing.
func cpuTime(pids ...int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			d, _ := parseStat(string(text))
			sum += d
		}
	}
	return sum
}

// parseStat returns the CPU time in the text of a /proc/PID/stat.
func parseStat(text string) (time.Duration, error) {
	// The second field is the program's name in parentheses, and may itself hold both and spaces.
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return 0, errors.New("stat without a program name")
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 13 {
		return 0, errors.New("stat is too short")
	}
	user, err := strconv.ParseInt(f[11], 10, 64) // utime, the 14th field of all
	if err != nil {
		return 0, fmt.Errorf("utime: %w", err)
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("stime: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}

// machineCPU returns the CPU time that all processes of the machine have used, without the time
// spent in interrupts, which /proc/PID/stat doesn't show either, plus the time stolen by the hypervisor.
func machineCPU() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	d, _ := parseMachine(string(text))
	return d
}

func parseMachine(text string) (time.Duration, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var sum int64
	for _, i := range []int{1, 2, 3, 8} { // user, nice, system, steal
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// rss returns the resident bytes of the processes.
func rss(pids ...int) int64 {
	var sum int64
	for _, pid := range pids {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
			sum += parseKB(string(text), "VmRSS")
		}
	}
	return sum
}

// parseKB returns the bytes of one "name:   123 kB" line of /proc/PID/status or /proc/meminfo, or 0.
func parseKB(text, name string) int64 {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name+":")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0
		}
		return n << 10
	}
	return 0
}

// descriptors returns the number of open descriptors of the processes.
func descriptors(pids ...int) int {
	n := 0
	for _, pid := range pids {
		entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		n += len(entries)
	}
	return n
}

// kernelMemory returns the bytes that the kernel holds for everyone: slab objects (sockets, files,
// epoll entries, pipes), page tables and stacks, and the pages in TCP buffers.
func kernelMemory() int64 {
	meminfo, _ := os.ReadFile("/proc/meminfo")
	sockstat, _ := os.ReadFile("/proc/net/sockstat")
	sum := parseKB(string(meminfo), "PageTables") + parseKB(string(meminfo), "KernelStack")
	sum += parseSockstat(string(sockstat)) * int64(os.Getpagesize())
	// The objects in use are steadier than the pages they are in, which the allocator gives back
	// late; but only root may read them.
	if slab, err := os.ReadFile("/proc/slabinfo"); err == nil {
		return sum + parseSlabinfo(string(slab))
	}
	return sum + parseKB(string(meminfo), "Slab")
}

// parseSlabinfo returns the bytes in use: objects times their size, over all caches.
func parseSlabinfo(text string) int64 {
	var sum int64
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] == "#" || f[0] == "slabinfo" {
			continue
		}
		active, err1 := strconv.ParseInt(f[1], 10, 64)
		size, err2 := strconv.ParseInt(f[3], 10, 64)
		if err1 == nil && err2 == nil {
			sum += active * size
		}
	}
	return sum
}

// parseSockstat returns the pages that TCP buffers hold, of all namespaces, from /proc/net/sockstat.
func parseSockstat(text string) int64 {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[i] == "mem" {
				n, _ := strconv.ParseInt(f[i+1], 10, 64)
				return n
			}
		}
	}
	return 0
}

// disturbance is the CPU time per second of other work, in CPUs, from which on a run is repeated,
// and marked if that didn't help.
const disturbance = 0.15

// watch is a stretch of time in which processes are observed.
type watch struct {
	began   time.Time
	machine time.Duration
	server  time.Duration
	load    time.Duration
	servers []int
	loads   []int
}

// observe begins a watch over the processes of the server and of the load. The benchmark's own
// process counts as load.
func observe(servers, loads []int) *watch {
	w := &watch{servers: servers, loads: append([]int{os.Getpid()}, loads...)}
	w.server, w.load = cpuTime(w.servers...), cpuTime(w.loads...)
	w.machine = machineCPU()
	w.began = time.Now()
	return w
}

// usage is what happened during a watch.
type usage struct {
	elapsed time.Duration
	server  time.Duration // CPU time of the server
	others  float64       // CPUs used by anything that is neither server nor load
}

// end ends the watch. ended is the CPU time of load processes that are gone already.
func (w *watch) end(ended time.Duration) usage {
	elapsed := time.Since(w.began)
	machine := machineCPU() - w.machine
	server := cpuTime(w.servers...) - w.server
	load := cpuTime(w.loads...) - w.load + ended
	return usage{
		elapsed: elapsed,
		server:  server,
		others:  max(0, (machine-server-load).Seconds()/elapsed.Seconds()),
	}
}
