package coremain

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/node/confine"
)

// The words of the flag -sandbox.
const (
	sandboxAuto = "auto"
	sandboxOn   = "on"
	sandboxOff  = "off"
)

func checkSandbox(word string) error {
	if slices.Contains([]string{sandboxAuto, sandboxOn, sandboxOff}, word) {
		return nil
	}
	return fmt.Errorf("-sandbox %s isn't known; it is auto, on or off", quote(word))
}

// sandboxABI tells monitoring whether the sandbox is in force.
var sandboxABI = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "postern_sandbox_landlock_abi",
	Help: "Version of Landlock's interface that keeps the process to its files, 0 where nothing does.",
})

// confine takes from the process what a node with the Corefile c doesn't need. It comes before anything is started:
// then a Corefile that names a file out of reach fails when it is first started and not at a restart months
// later, and what the node starts is inside.
//
// outer keep the process already: those of the process that has started it, whose place it takes. They aren't widened by
// anything, and where these rules are among them nothing has to be added: the kernel takes 16 at most.
func (l *loader) confine(c *corefile, word string, outer []confine.Rules) error {
	l.sandbox = confine.Inherited(outer, confine.Sandbox{})
	if err := prometheus.Register(sandboxABI); err != nil {
		return err
	}
	if word == sandboxOff {
		clog.Warning("sandbox: off; this process can touch every file that its user can")
		return nil
	}
	left, err := privileges()
	if err == nil {
		err = confine.Harden()
	}
	if err == nil {
		err = l.restrict(c, outer)
	}
	switch {
	case word == sandboxOn && err != nil:
		return fmt.Errorf("-sandbox on: %w", err)
	case word == sandboxOn && left != "":
		return fmt.Errorf("-sandbox on: %s", left)
	case err != nil:
		clog.Warningf("sandbox: not in force: %v", err)
	}
	if left != "" {
		clog.Warningf("privileges: %s", left)
	}
	return nil
}

// restrict puts Landlock in force and says so.
func (l *loader) restrict(c *corefile, outer []confine.Rules) error {
	rules, err := c.reach()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(outer, rules.Same) {
		l.sandbox = confine.Inherited(outer, confine.Sandbox{ABI: confine.Version()})
	} else {
		own, err := confine.Apply(rules)
		if err != nil {
			return c.wide(err)
		}
		l.sandbox = confine.Inherited(outer, own)
	}
	sandboxABI.Set(float64(l.sandbox.ABI))
	but := ""
	if l.sandbox.Missing != "" {
		but = "; this kernel doesn't restrict " + l.sandbox.Missing
	}
	if !dnsserver.Quiet {
		clog.Infof("sandbox: Landlock ABI %d; writes below %s, reads below %s%s", l.sandbox.ABI,
			strings.Join(slices.Concat(rules.Write, rules.Create), " "), strings.Join(slices.Concat(rules.Read, rules.Execute), " "), but)
	}
	return nil
}

// wide says which file would open everything to the sandbox, where that is the state's.
func (c *corefile) wide(err error) error {
	place, placeErr := c.place()
	if !errors.Is(err, confine.ErrWide) || placeErr != nil || place.Shared() || filepath.Dir(place.Bolt) != "/" {
		return err
	}
	p := &problem{File: c.path, Directive: "linkstore", Text: "the state is " + place.Bolt +
		", in the root directory, and a sandbox that lets it be written there keeps nothing; give it a directory of its own with \"linkstore bolt PATH\""}
	for _, words := range allUses(c, "linkstore") {
		p.File, p.Line = fileOf(c, words[0]), words[0].Line
	}
	return p
}

// privileges says what the process has and doesn't need, "" where that is nothing.
func privileges() (string, error) {
	p, err := confine.Current()
	if err != nil {
		return "", err
	}
	if p.Root {
		return "running as root: give it a user of its own and CAP_NET_BIND_SERVICE alone (docs/operations.md has a unit)", nil
	}
	if more := p.Beyond("CAP_NET_BIND_SERVICE"); len(more) > 0 {
		return "more than is needed, drop " + strings.Join(more, " "), nil
	}
	return "", nil
}

// What every node reads: settings of the system, what its resolver and its certificates link to, what the kernel
// tells, and programs with what they are made of. The files in /dev are named one by one: a disk is there too.
var (
	readBySystem    = []string{"/etc", "/run", "/srv", "/proc", "/sys"}
	executeBySystem = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store"}
	devices         = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
)

// reach returns the paths that a node with this Corefile needs. What a later one names is in the directories of the
// system, or beside what this one names, or out of reach until a restart.
func (c *corefile) reach() (confine.Rules, error) {
	r := confine.Rules{Read: slices.Clone(readBySystem), Execute: slices.Clone(executeBySystem), Devices: devices}
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	r.Execute = append(r.Execute, self) // policy programs are started through it
	for _, p := range c.paths() {
		if dirs := p.directories(); p.at.directive == "linkpolicy" {
			r.Execute = append(r.Execute, dirs...)
		} else {
			r.Read = append(r.Read, dirs...)
		}
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/localtime"} {
		if real, err := filepath.EvalSymlinks(name); err == nil {
			r.Read = append(r.Read, filepath.Dir(real))
		}
	}
	if err := c.writes(&r); err != nil {
		return r, err
	}
	// An upgrade starts what is at the path of this binary then. What the process can write it can't start.
	home, program := filepath.Dir(self), func(dir string) bool { return confine.Below(dir, filepath.Dir(self)) }
	if home != "/" && !slices.ContainsFunc(slices.Concat(r.Write, r.Create), program) {
		r.Execute = append(r.Execute, home)
	}
	r.Read = outside(r.Read, r.Write, r.Execute)
	r.Execute = outside(r.Execute)
	r.Write, r.Create = outside(r.Write), outside(r.Create, r.Write)
	return r, nil
}

// writes adds where a node with this Corefile writes.
func (c *corefile) writes(r *confine.Rules) error {
	place, err := c.place()
	if err != nil {
		return err
	}
	own, err := (&corefile{}).place() // where the API's certificate and positions of exports go without a state file
	if err != nil {
		return err
	}
	if !place.Shared() {
		r.Write = append(r.Write, filepath.Dir(place.Bolt))
	} else if place.Socket() != "" {
		r.Write = append(r.Write, filepath.Dir(place.Socket()))
	}
	for _, words := range allUses(c, "linkapi") {
		if place.Shared() && len(property(words, "tls")) == 0 {
			r.Write = append(r.Write, filepath.Dir(own.Bolt))
		}
		for _, t := range property(words, "identities") {
			// The key that tokens of clients are signed with is made beside it when the first is asked for.
			if path := absolute(t.Text); !there(path + ".key") {
				r.Create = append(r.Create, filepath.Dir(path))
			}
		}
	}
	for _, words := range allUses(c, "linkexport") {
		if place.Shared() {
			r.Write = append(r.Write, filepath.Dir(own.Bolt)) // where positions go without a state file
		}
		for _, t := range property(words, "position") {
			r.Write = append(r.Write, filepath.Dir(absolute(t.Text)))
		}
	}
	for _, words := range allUses(c, "tls") {
		if args := arguments(words); len(args) > 0 && args[0].Text == "acme" {
			dir := absolute(filepath.Join(".coredns", "acme"))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("tls acme: %w", err)
			}
			r.Write = append(r.Write, dir)
		}
		for _, t := range property(words, "keylog") {
			r.Create = append(r.Create, filepath.Dir(absolute(t.Text)))
		}
	}
	if c.hasPrograms() { // each makes its socket in a directory that is made there for it
		r.Write = append(r.Write, os.TempDir())
	}
	if caddy.PidFile != "" {
		r.Create = append(r.Create, filepath.Dir(absolute(caddy.PidFile)))
	}
	return nil
}

// outside returns dirs sorted, without those that are in another one of the lists, and each once.
func outside(dirs []string, others ...[]string) (all []string) {
	slices.Sort(dirs)
	for _, d := range dirs {
		in := func(other string) bool { return confine.Below(d, other) }
		if !slices.ContainsFunc(all, in) && !slices.ContainsFunc(slices.Concat(others...), in) {
			all = append(all, d)
		}
	}
	return all
}

// startHint says what may keep a new binary from being started.
func (l *loader) startHint(err error) string {
	if l.sandbox.ABI == 0 || !errors.Is(err, os.ErrPermission) {
		return ""
	}
	return "; the sandbox lets this process start what is in the directories of the system and beside its own binary, where it writes nothing"
}

// errSandbox stands behind an error that the sandbox has most likely caused.
const errSandbox = "; the sandbox may be the cause: it lets this process read the directories of the system and those of files that the Corefile named when it was started; restart it, or start it with -sandbox off"

// reDenied finds the file that the system has refused, in the form of errors of package os.
var reDenied = regexp.MustCompile(`(?:^| )(?:open|stat|lstat|mkdir|readlink|unlinkat|rename) ([^: ][^:]*): permission denied`)

// because returns an error with the sandbox named where that may be its cause: not where the mode of the file
// says as much, which is then told with its owner.
func (l *loader) because(err error) error {
	text := err.Error()
	if l.sandbox.ABI == 0 || !strings.Contains(text, "permission denied") {
		return err
	}
	if m := reDenied.FindStringSubmatch(text); m != nil && l.sandbox.Reads(absolute(m[1])) {
		if why := closed(m[1]); why != "" {
			return errors.New(text + "; " + why)
		}
	}
	return errors.New(text + errSandbox)
}

// closed says why the user of this process can't read a file, "" where as far as modes go it can. The sandbox hides
// neither a file's mode nor what that allows.
func closed(path string) string {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrPermission):
		return "a directory on the way to it is closed to this process's user"
	case err == nil && unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS) != nil:
		return whose(info)
	}
	return ""
}

// whose says to whom a file belongs, and for whom it is.
func whose(info os.FileInfo) string {
	owner := "somebody else"
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = strconv.FormatUint(uint64(st.Uid), 10)
		if u, err := user.LookupId(owner); err == nil {
			owner = u.Username
		}
	}
	return fmt.Sprintf("it is %s's, with mode %04o", owner, info.Mode().Perm())
}

// outOfReach returns the problem that a Corefile names a file which the sandbox keeps from the process, nil where it
// doesn't. It has to be found here: some plugins go on without a file that they can't open, and say nothing.
func (l *loader) outOfReach(c *corefile) *problem {
	for _, p := range c.paths() {
		if !l.sandbox.Reads(p.path) {
			return &problem{p.at.file, p.at.line, p.at.directive, p.path + " is out of reach of the sandbox, which knows the directories of files that the Corefile named when it was started; restart the process for it"}
		}
	}
	return nil
}
