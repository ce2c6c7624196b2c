// Package external runs policy programs: separate processes that are asked about flows and requests over
// gRPC (hashicorp/go-plugin). A program is not trusted: it can only narrow, it is bounded in time, memory
// that it costs us, and output, and it sees nothing of the host but what it is asked.
//
// How a program comes to run, and what each step is against:
//
//	executable  its bytes are copied into sealed memory while they are hashed, and run from there: what runs is
//	            what was checked, also at a restart, whatever becomes of the file
//	launcher    the node's own binary, started again ([Launch]), which becomes the program: user, limits and
//	            sandbox are set by a process that is neither of the two
//	sandbox     landlock for files, TCP, signals and abstract sockets; seccomp for sockets, processes and the rest
//	handshake   go-plugin's, with certificates that both ends make for the occasion; within 10 s
//	socket      the only one that we connect to is in a directory that we made for this process
//	death       the kernel kills the program with the thread that started it; a program can't start others
//
// The connection itself is our own and not go-plugin's, which lets a program open streams to its host that
// cost memory without bound.
package external

import (
	"slices"
	"time"
)

// Config is one program as a Corefile names it. It is comparable in all that matters for whether a running
// program can stay: see Same.
type Config struct {
	Name     string   // of the policy that it belongs to
	Path     string   // of the executable, absolute
	Args     []string // beyond its name
	Checksum [32]byte // SHA-256 of the executable; required
	// User is who it runs as, by name or number; "" is "nobody" where the node runs as root, and the
	// node's own user where it doesn't.
	User    string
	Timeout time.Duration // of one answer: 250 ms
	// What it is asked, Flows where none is set.
	Flows, Reviews, Changes bool
	// Network lets it open connections: "allow network". Without it has the socket it answers on and no other.
	Network bool
	// Files are paths, absolute, that it may read and execute from, with all below them: "allow read PATH...".
	// Without it reads its own executable and the shared libraries and certificates of the system.
	Files []string
	// Memory is how many bytes of data it may hold: 1 GiB where 0, as with every program of a Corefile, without
	// bound where negative.
	Memory int64
}

// Same reports whether a program that runs by c can go on under d.
func (c Config) Same(d Config) bool {
	c, d = c.complete(), d.complete()
	return c.Name == d.Name && c.Path == d.Path && slices.Equal(c.Args, d.Args) && c.Checksum == d.Checksum &&
		c.User == d.User && c.Timeout == d.Timeout && c.Flows == d.Flows && c.Reviews == d.Reviews && c.Changes == d.Changes &&
		c.Network == d.Network && slices.Equal(c.Files, d.Files) && c.Memory == d.Memory
}

// complete returns c with what its zero values mean.
func (c Config) complete() Config {
	if c.Timeout == 0 {
		c.Timeout = 250 * time.Millisecond
	}
	if !c.Flows && !c.Reviews && !c.Changes {
		c.Flows = true
	}
	if c.Memory == 0 {
		c.Memory = 1 << 30
	}
	return c
}

// StartError is a program that can't be started.
type StartError struct {
	Name string // of its policy
	Err  error
	// Output is the last that it printed, with escapes, at most 4 KiB; "" where it printed nothing.
	Output string
}

// Error says why, and what the program had to say.
func (e *StartError) Error() string {
	s := "policy " + e.Name + ": start its program: " + e.Err.Error()
	if e.Output != "" {
		s += "; it printed: " + e.Output
	}
	return s
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }
