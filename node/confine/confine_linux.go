package confine

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// What each kind of rule allows. Devices, links and pipes are never made.
const (
	readRights    = ll.AccessFSReadFile | ll.AccessFSReadDir
	executeRights = readRights | ll.AccessFSExecute
	createRights  = ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile
	writeRights   = readRights | createRights | ll.AccessFSMakeDir | ll.AccessFSMakeSock | ll.AccessFSRemoveDir | ll.AccessFSResolveUnix
	deviceRights  = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate

	// fileRights are those that a rule about a single file may have.
	fileRights = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSReadFile | ll.AccessFSTruncate | ll.AccessFSResolveUnix
)

// handled are all rights on files up to ABI 9: what no rule allows is refused.
const handled = ll.AccessFSExecute | ll.AccessFSWriteFile | ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSRemoveDir |
	ll.AccessFSRemoveFile | ll.AccessFSMakeChar | ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock |
	ll.AccessFSMakeFifo | ll.AccessFSMakeBlock | ll.AccessFSMakeSym | ll.AccessFSRefer | ll.AccessFSTruncate |
	ll.AccessFSIoctlDev | ll.AccessFSResolveUnix

// Apply restricts all threads of this process, and what it starts from now on, to the rules. Processes that it
// started before can't be signalled afterwards: call it first. The error is [ErrUnsupported], [ErrWide], or what
// the kernel says; nothing is in force then but no_new_privs, perhaps.
func Apply(r Rules) (Sandbox, error) {
	r = r.resolved()
	if r.wide() {
		return Sandbox{}, ErrWide
	}
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		// Asked for by itself: the library's best effort does nothing at all on such a kernel, and says so to nobody.
		return Sandbox{}, ErrUnsupported
	}
	var rules []landlock.Rule
	for _, kind := range []struct {
		paths  []string
		rights landlock.AccessFSSet
	}{{r.Read, readRights}, {r.Execute, executeRights}, {r.Write, writeRights}, {r.Create, createRights}, {r.Devices, deviceRights}} {
		for _, path := range kind.paths {
			info, err := os.Stat(path)
			if err != nil {
				continue // it isn't there, or it is none that we could use
			}
			rights := kind.rights
			if !info.IsDir() {
				rights &= fileRights
			}
			rules = append(rules, landlock.PathAccess(rights, path).IgnoreIfMissing())
		}
	}
	config, err := landlock.NewConfig(landlock.AccessFSSet(handled), scopes(abi))
	if err != nil {
		return Sandbox{}, fmt.Errorf("landlock: %w", err)
	}
	if err := config.BestEffort().Restrict(rules...); err != nil {
		return Sandbox{}, fmt.Errorf("landlock: %w", err)
	}
	return Sandbox{ABI: abi, Missing: missing(abi), rules: []Rules{r}}, nil
}

// Version returns that of the kernel's interface, 0 where it has none.
func Version() int {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

// scopes returns what stays inside: abstract sockets, and signals. Before a correction that came with Linux 6.15 and
// went into the stable kernels, a thread that was restricted couldn't signal one of the same process that wasn't
// yet, which is how all threads are reached; there signals are left as they are.
func scopes(abi int) landlock.ScopedSet {
	const signals = 1 << 1 // the second erratum
	if fixed, err := ll.LandlockGetErrata(); abi >= 6 && (err != nil || fixed&signals == 0) {
		return ll.ScopeAbstractUnixSocket
	}
	return ll.ScopeAbstractUnixSocket | ll.ScopeSignal
}

// missing says what a version of Landlock doesn't restrict.
func missing(abi int) string {
	switch {
	case abi < 3:
		return "truncating files, signals, abstract sockets"
	case abi < 6:
		return "signals, abstract sockets"
	case scopes(abi)&ll.ScopeSignal == 0:
		return "signals"
	}
	return ""
}

// Harden takes from the process and its children what needs no choice: programs that it starts gain no privileges by
// set-user-ID bits or file capabilities (no_new_privs); its memory holds keys and tokens, so it leaves no core
// and no process of the same user can read it (PR_SET_DUMPABLE), such as a policy program; files that it makes are its
// user's alone (umask 0077).
func Harden() error {
	unix.Umask(0o077)
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("core dumps: %w", err)
	}
	return nil
}

// Current returns the privileges of this process.
func Current() (Privileges, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Privileges{}, err
	}
	return parseStatus(string(text))
}
