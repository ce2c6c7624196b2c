//go:build !linux

package freeport

import (
	"errors"
	"sync"
)

var claimed sync.Map

var errClaimed = errors.New("another test has the port")

// claim keeps other tests of this process from a port; for those of others there is the chance of one in thousands.
func claim(port int) (release func(), err error) {
	if _, taken := claimed.LoadOrStore(port, true); taken {
		return nil, errClaimed
	}
	return func() { claimed.Delete(port) }, nil
}
