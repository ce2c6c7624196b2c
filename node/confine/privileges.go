package confine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Privileges are what a process may do beyond what any may. The zero value: nothing.
type Privileges struct {
	Root         bool   // the effective user is 0
	Capabilities uint64 // effective or permitted; bit N is capability N of capabilities(7)
	NoNewPrivs   bool
}

// names of the capabilities by number, as capabilities(7) has them.
var names = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap
	linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio
	sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease
	audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon
	bpf checkpoint_restore`)

// Beyond returns the names of the capabilities that aren't among those needed, CAP_NET_BIND_SERVICE and the like,
// in the order of their numbers.
func (p Privileges) Beyond(needed ...string) (all []string) {
	for n := range 64 {
		if p.Capabilities&(1<<n) == 0 {
			continue
		}
		name := fmt.Sprintf("CAP_%d", n)
		if n < len(names) {
			name = "CAP_" + strings.ToUpper(names[n])
		}
		if !slices.Contains(needed, name) {
			all = append(all, name)
		}
	}
	return all
}

// parseStatus reads /proc/PID/status, proc_pid_status(5). A line that is missing is an error: what can't be seen
// isn't taken for little.
func parseStatus(text string) (p Privileges, err error) {
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Uid": // real, effective, saved, file system
			ids := strings.Fields(value)
			if len(ids) < 2 {
				return Privileges{}, fmt.Errorf("status of the process: Uid %q", value)
			}
			p.Root = ids[1] == "0"
		case "CapPrm", "CapEff":
			n, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return Privileges{}, fmt.Errorf("status of the process: %s: %w", name, err)
			}
			p.Capabilities |= n
		case "NoNewPrivs":
			p.NoNewPrivs = value == "1"
		default:
			continue
		}
		found++
	}
	if found < 4 {
		return Privileges{}, fmt.Errorf("status of the process: %d of 4 lines are there", found)
	}
	return p, nil
}
