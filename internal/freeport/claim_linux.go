package freeport

import (
	"fmt"
	"net"
)

// claim keeps other tests from a port. An abstract socket is of the network namespace, as the port is, and is gone with
// the process, however that ends (unix(7)).
func claim(port int) (release func(), err error) {
	l, err := net.Listen("unix", fmt.Sprint("@postern-freeport-", port))
	if err != nil {
		return nil, err
	}
	return func() { _ = l.Close() }, nil
}
