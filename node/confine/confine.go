// Package confine takes from a process what it doesn't need, so that whoever takes the process over finds
// little to do with it: files by Landlock, privileges that a program started by it could gain, its memory
// as a file. It knows no Corefile: which paths are needed it is told.
//
// Landlock (landlock(7)) is for the life of the process and of all that it starts: what was taken doesn't come
// back with a reload. TCP and UDP aren't restricted: a proxy listens and connects where its state says,
// which changes while it runs.
package confine

import (
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Rules are the paths that a process needs. A directory stands for all below it. Paths are absolute; what
// isn't there is left out, and isn't allowed when it comes to be.
type Rules struct {
	Read    []string // read files, list directories
	Execute []string // the same, and execute
	Write   []string // read, write, create and remove; nothing is executed from there
	Create  []string // directories, in which files are created, replaced and removed; nothing is read
	Devices []string // files that are read and written, and neither created nor removed
}

// Sandbox is what Landlock has put in force. The zero value: nothing.
type Sandbox struct {
	ABI     int     // version of Landlock's interface as the kernel has it; 0: none, or not in force
	Missing string  // what an older kernel doesn't restrict; "": nothing that this package knows of
	rules   []Rules // each keeps by itself: what one doesn't allow isn't allowed
}

// Inherited returns the sandbox of a process that was started by one which these rules keep, with another sandbox of
// its own inside of it; the zero one where it has none.
func Inherited(outer []Rules, own Sandbox) Sandbox {
	if len(outer) == 0 {
		return own
	}
	own.rules = append(slices.Clone(outer), own.rules...)
	return own
}

// Rules returns what keeps the process, and all that it starts.
func (s Sandbox) Rules() []Rules { return s.rules }

// Same reports whether rules allow the same as others, which are in force. Links are followed as they are now.
func (r Rules) Same(inForce Rules) bool { return reflect.DeepEqual(r.resolved(), inForce) }

// Errors of [Apply].
var (
	// ErrUnsupported: the kernel has no Landlock, or was started without.
	ErrUnsupported = errors.New("the kernel has no Landlock, or was started without it")
	// ErrWide: a rule would allow to write everything.
	ErrWide = errors.New("the rules would allow to write everything: give the state a directory of its own")
)

// Reads reports whether a file can be read as far as the sandbox goes, through whatever links lead to it. Without a
// sandbox everything can.
func (s Sandbox) Reads(path string) bool {
	if s.ABI == 0 {
		return true
	}
	path = resolve(path)
	for _, r := range s.rules {
		if !r.read(path) {
			return false
		}
	}
	return true
}

// read reports whether the rules allow to read a path without links.
func (r Rules) read(path string) bool {
	for _, dirs := range [][]string{r.Read, r.Execute, r.Write, r.Devices} {
		for _, dir := range dirs {
			if Below(path, dir) {
				return true
			}
		}
	}
	return false
}

// Below reports whether a clean, absolute path is a directory or in it.
func Below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve follows the links of a path as far as it is there.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// resolved returns rules without links in them, as the kernel takes them.
func (r Rules) resolved() Rules {
	all := func(paths []string) (out []string) {
		for _, p := range paths {
			out = append(out, resolve(p))
		}
		return out
	}
	return Rules{all(r.Read), all(r.Execute), all(r.Write), all(r.Create), all(r.Devices)}
}

// wide reports whether the rules allow to write everything.
func (r Rules) wide() bool {
	for _, dirs := range [][]string{r.Write, r.Create} {
		for _, d := range dirs {
			if d == "/" {
				return true
			}
		}
	}
	return false
}
