//go:build !portable

package engine

// HasEpoll reports whether this build has the engine of loops over epoll. With the build tag portable it hasn't.
const HasEpoll = true

// New returns the engine that is best on this platform.
func New() (Engine, error) { return newEpoll() }
