package freeport

import (
	"net"
	"strconv"
	"testing"
)

// TestGet: no port twice, all of them can be listened on again and again, and all come back at the end of their test.
func TestGet(t *testing.T) {
	seen := map[uint16]bool{}
	t.Run("holder", func(t *testing.T) {
		for range 50 {
			addr := Addr(t, "127.0.0.1")
			_, s, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.ParseUint(s, 10, 16)
			if err != nil || n < first || n > last {
				t.Fatalf("%s: %v", addr, err)
			}
			if seen[uint16(n)] {
				t.Fatalf("%d twice", n)
			}
			seen[uint16(n)] = true
			for range 2 {
				l, err := net.Listen("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				l.Close()
			}
			if _, err := claim(int(n)); err == nil {
				t.Fatalf("%d can be claimed again", n)
			}
		}
	})
	for port := range seen {
		release, err := claim(int(port))
		if err != nil {
			t.Fatalf("%d is held after the test: %v", port, err)
		}
		release()
	}
}

// TestUnused: a port that somebody listens on is not handed out, whether the address is the same or not.
func TestUnused(t *testing.T) {
	port := int(Get(t))
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if unused(port) {
		t.Error("a port that is listened on passes for unused")
	}
}
