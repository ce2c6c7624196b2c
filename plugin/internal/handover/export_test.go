package handover

// Running returns the number of nodes that run in this process.
func Running() int {
	running.mu.Lock()
	defer running.mu.Unlock()
	return len(running.by)
}

// Reloading reports whether a reload is under way.
func Reloading() bool { return len(slot.free) > 0 }
