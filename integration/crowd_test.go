package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// plain returns a binary without the race detector, for tests of what a node takes of a machine.
func plain(t *testing.T) string {
	t.Helper()
	path, err := plainBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// plainBinary builds it once for all tests, as "make build" does.
var plainBinary = sync.OnceValues(func() (string, error) {
	if os.Getenv("POSTERN_BINARY") != "" {
		return binary, nil
	}
	path := filepath.Join(filepath.Dir(binary), "postern-plain")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build postern: %w\n%s", err, out)
	}
	return path, nil
})

// metric returns the number of the first metric of the node whose line begins with a pattern.
func (g *ground) metric(pattern string) int {
	g.t.Helper()
	out, err := g.output("edge", "curl", "-sS", "--max-time", "10", "http://127.0.0.1:9153/metrics")
	if err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	m := regexp.MustCompile(`(?m)^` + pattern + ` (\S+)$`).FindStringSubmatch(out)
	if m == nil {
		g.t.Fatalf("no metric %s", pattern)
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return int(f)
}

// echoes serves every connection of a listener by sending back what comes, with a goroutine each.
func (g *ground) echoes(host, addr string) {
	ln := g.listen(host, addr)
	var mu sync.Mutex
	var all []net.Conn
	g.t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range all {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			go func() {
				defer c.Close()
				b := make([]byte, 256)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					if _, err := c.Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// crowd opens n connections from a host, several at a time. Those that can't be had are left out.
func (g *ground) crowd(host, addr string, n int) []net.Conn {
	g.t.Helper()
	const workers = 8
	all := make([][]net.Conn, workers)
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			_ = g.net.hosts[host].enter(func() error {
				for range n / workers {
					if c, err := net.DialTimeout("tcp", addr, 10*time.Second); err == nil {
						all[w] = append(all[w], c)
					}
				}
				return nil
			})
		})
	}
	wait.Wait()
	flat := slices.Concat(all...)
	g.t.Cleanup(func() {
		for _, c := range flat {
			c.Close()
		}
	})
	return flat
}

// answered returns the connections that carry a line there and back, and closes the others.
func answered(conns []net.Conn) (alive []net.Conn) {
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, "hello") // a flow that was refused says so when it is read
	}
	for _, c := range conns {
		if _, err := io.ReadFull(c, make([]byte, 5)); err == nil {
			alive = append(alive, c)
		} else {
			c.Close()
		}
	}
	return alive
}
