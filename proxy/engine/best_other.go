//go:build !linux || portable

package engine

// HasEpoll reports whether this build has the engine of loops over epoll: only that of Linux may.
const HasEpoll = false

// New returns the engine that is best on this platform.
func New() (Engine, error) { return Portable(), nil }
