//go:build !linux

package succession

import (
	"errors"
	"net"
	"os"
)

// errSystem: sockets are found and handed on as Linux does it.
var errSystem = errors.New("a process takes another's place on Linux alone")

// Child is a process that was started to follow this one.
type Child struct{ *Conn }

// Launch is for Linux.
func Launch(string, *os.File) (*Child, error) { return nil, errSystem }

// Pid is for Linux.
func (c *Child) Pid() int { return 0 }

// Kill is for Linux.
func (c *Child) Kill() string { return "" }

// Done is for Linux.
func (c *Child) Done() <-chan struct{} { return nil }

// Predecessor is for Linux: there is none.
func Predecessor() (*Conn, error) { return nil, nil }

// SendSockets is for Linux.
func (c *Conn) SendSockets(Message, int, func(int) (int, bool)) error { return errSystem }

// Listening is for Linux.
func Listening(func(Socket, int) error) error { return errSystem }

// Describe is for Linux.
func Describe(int) (Socket, bool) { return Socket{}, false }

// Listener is for Linux.
func Listener(int) (*net.TCPListener, error) { return nil, errSystem }

// Packet is for Linux.
func Packet(int) (*net.UDPConn, error) { return nil, errSystem }

// CloseAll is for Linux.
func CloseAll([]int) {}

const rightsSpace = 0

func rights([]int) []byte            { return nil }
func truncated(int) (_, _ bool)      { return false, false }
func received([]byte) ([]int, error) { return nil, nil }
