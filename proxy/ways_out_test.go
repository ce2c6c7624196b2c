package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// X26: who scans the addresses of endpoints finds the ports of their services and no other. Nothing is dialled, each
// flow is counted, and the log has a summary rather than a line for each.
func TestScan(t *testing.T) {
	const addresses, from, to = 50, 6980, 7060
	at := newTarget(t).addr()
	w := newWorld(t, Settings{}, service("a", 7001, at), service("b", 7002, at))
	w.oneWindow()
	ports := map[string]int{}
	var changes []link.Change
	for i := range addresses {
		id, svc, addr := link.ID(fmt.Sprintf("e%d", i)), link.ID("a"), nextAddr(t)
		if ports[addr] = 7001; i%2 == 1 {
			svc, ports[addr] = "b", 7002
		}
		changes = append(changes, endpoint(id, svc, addr, "192.0.2.0/24"))
	}
	w.apply(changes...)
	for addr, own := range ports {
		for port := from; port < to; port++ {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, strconv.Itoa(port)), patience)
			if err == nil { // or the reset came while it was connecting
				if b, _ := io.ReadAll(c); len(b) > 0 {
					t.Errorf("%s:%d says %q", addr, port, b)
				}
				c.Close()
			}
			if open := !errors.Is(err, syscall.ECONNREFUSED); open != (port == own) {
				t.Errorf("%s:%d accepts: %v", addr, port, open)
			}
		}
	}
	eventually(t, "each is counted", func() bool {
		return w.metric(t, "postern_proxy_refused_total", string(policy.SourceDenied)) == addresses
	})
	if w.dials(t) != 0 {
		t.Error("a target was dialled")
	}
	w.proxy.Close()
	lines, summaries := len(w.log.lines("flow refused")), w.log.lines("more flows refused", "source=127.0.0.1")
	if lines != refusalLines || len(summaries) != 1 {
		t.Errorf("%d lines, summaries %q", lines, summaries)
	}
	for _, s := range summaries {
		n, _ := strconv.Atoi(regexp.MustCompile(` flows=(\d+)`).FindStringSubmatch(s)[1])
		lines += n
	}
	if lines != addresses {
		t.Errorf("the log speaks of %d flows", lines)
	}
}

// X31: what a provider says of another address is carried as it is, and nothing is opened for it.
func TestRedirects(t *testing.T) {
	other := newTarget(t)
	port := other.addr().Port()
	for name, text := range map[string]string{
		"X31 Location":      fmt.Sprintf("HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:%d/\r\n\r\n", port),
		"X31 Alt-Svc":       fmt.Sprintf("HTTP/1.1 200 OK\r\nAlt-Svc: h2=\":%d\"; ma=3600\r\n\r\n", port),
		"X31 MySQL":         fmt.Sprintf("\x40\x00\x00\x02\x00\x00\x00\x02\x00Location: mysql://[127.0.0.1]:%d/user=a&ttl=60", port),
		"X31 SQL Server":    "\x04\x01\x00\x25\x00\x00\x01\x00\xe3\x19\x00\x14\x16\x00\x00" + string([]byte{byte(port), byte(port >> 8)}) + "\x09\x001\x002\x007\x00.\x000\x00.\x000\x00.\x001\x00",
		"X31 FTP, PASV":     fmt.Sprintf("227 Entering Passive Mode (127,0,0,1,%d,%d)\r\n", port>>8, port&0xff),
		"X31 Redis Cluster": fmt.Sprintf("-MOVED 3999 127.0.0.1:%d\r\n", port),
	} {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, func(c *net.TCPConn) {
				io.WriteString(c, text)
				c.CloseWrite()
				io.Copy(io.Discard, c)
			})
			w := newWorld(t, Settings{}, service("svc", 7001, addr), endpoint("e", "svc", nextAddr(t)))
			before := w.listening()
			if got, err := io.ReadAll(dial(t, w.first())); string(got) != text || err != nil {
				t.Errorf("%q, error %v", got, err)
			}
			w.proxy.Update(w.now.Load())
			if now := w.listening(); !maps.Equal(now, before) {
				t.Errorf("listening on %v, before on %v", now, before)
			}
			if c, err := net.Dial("tcp", net.JoinHostPort(w.host(), strconv.Itoa(int(port)))); err == nil {
				c.Close()
				t.Error("the other port is open")
			}
		})
	}
	select {
	case c := <-other.conns:
		c.Close()
		t.Error("the other address was dialled")
	default:
	}
}

// X36: suspended, flows are cut and new ones refused; resumed, there are new flows, over a connection with the
// same link ID, and the old ones are not back.
func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
	says := func(c *net.TCPConn) error {
		got := make([]byte, 5)
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, []byte("hello")) {
			return fmt.Errorf("%q: %w", got, err)
		}
		return nil
	}
	id := w.connection("e").LinkID
	for range 3 {
		c := dial(t, w.first())
		if err := says(c); err != nil {
			t.Fatal(err)
		}
		w.apply(revocations["suspend"](w)...)
		if !isReset(c) {
			t.Fatal("not reset")
		}
		if again, err := net.DialTimeout("tcp", w.first(), patience); err == nil {
			if b, err := io.ReadAll(again); err == nil || len(b) > 0 {
				t.Errorf("a suspended connection says %q", b)
			}
			again.Close()
		}
		w.apply(link.Resume{Endpoint: "e", LinkID: id})
		if now := w.connection("e").LinkID; now != id {
			t.Errorf("link ID %s, before %s", now, id)
		}
		if says(c) == nil {
			t.Error("the flow that was cut is back")
		}
		if err := says(dial(t, w.first())); err != nil {
			t.Errorf("resumed: %v", err)
		}
	}
}
