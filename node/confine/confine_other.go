//go:build !linux

package confine

import "errors"

// Apply does nothing: Landlock is Linux's.
func Apply(Rules) (Sandbox, error) { return Sandbox{}, ErrUnsupported }

// Harden does nothing.
func Harden() error { return nil }

// Current can't be told here.
func Current() (Privileges, error) { return Privileges{}, errors.New("not known on this system") }

// Version is that of an interface which isn't there.
func Version() int { return 0 }
