// Package freeport hands ports to tests whose server can't be told to listen on port 0: because a peer has to know the
// port before, or because the server is stopped and started again on the same one.
//
// A port that the kernel chose and that was closed again isn't free: the next connection from this machine may get it as
// its source port. These are below the ports that a kernel chooses from, and no two tests, of whatever process, hold one
// at a time.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// The ports that are handed out: above those of common services, below those of outgoing connections (32768 in Linux,
// 49152 by RFC 6335 section 6).
const first, last = 20000, 32767

// Get returns a port that nothing listens on, with TCP or UDP, at any address. It is the test's until its end.
func Get(t testing.TB) uint16 {
	t.Helper()
	start := rand.IntN(last - first + 1)
	for i := range last - first + 1 {
		port := first + (start+i)%(last-first+1)
		release, err := claim(port)
		if err != nil {
			continue
		}
		if !unused(port) {
			release()
			continue
		}
		t.Cleanup(release)
		return uint16(port)
	}
	t.Fatal("no free port")
	return 0
}

// Addr returns host with a port from Get.
func Addr(t testing.TB, host string) string {
	t.Helper()
	return net.JoinHostPort(host, strconv.Itoa(int(Get(t))))
}

func unused(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprint(":", port))
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", fmt.Sprint(":", port))
	if err != nil {
		return false
	}
	p.Close()
	return true
}
