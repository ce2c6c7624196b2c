//go:build !linux

package coremain

// warden keeps the bounds of clients by TCP on Linux alone.
type warden struct{}

func newWarden() (*warden, error) { return nil, nil }

func (*warden) listening() {}
func (*warden) close()     {}
