//go:build !linux

// Command bench measures Postern against its peers. It reads /proc and uses epoll, so it needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: needs Linux")
	os.Exit(1)
}
