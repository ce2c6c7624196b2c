// Package external runs policy programs: separate processes that are asked about flows and requests over
// gRPC (hashicorp/go-plugin). A program is not trusted: it can only narrow, it is bounded in time, memory
// that it costs us, and output, and it sees nothing of the host but what it is asked.
package external

import (
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
	// Memory is how many bytes of data it may hold: 1 GiB where 0, without bound where negative.
	Memory int64
}
