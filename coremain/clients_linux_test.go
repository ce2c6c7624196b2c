package coremain

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// transports is a server that answers by all of them: x.example with an address, and big.example with many.
type transports struct {
	*server
	tls, https, pprof, metrics string
}

// startTransports starts the server with at most so many descriptors, 0: as many as there are, and more lines in the block of plain DNS.
func startTransports(t *testing.T, descriptors int, lines ...string) *transports {
	t.Helper()
	dir := t.TempDir()
	certificate(t, dir)
	plain, byTLS, byHTTPS, pprof, metrics := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	hosts := " errors\n hosts {\n  192.0.2.1 x.example\n"
	for i := range 100 {
		hosts += fmt.Sprintf("  198.51.100.%d big.example\n", i+1)
	}
	hosts += " }\n}\n"
	text := ".:" + plain + " {\n bind 127.0.0.1\n linknetwork corp 127.0.0.0/8\n privatelink\n pprof 127.0.0.1:" + pprof + "\n prometheus 127.0.0.1:" + metrics + "\n " + strings.Join(lines, "\n ") + "\n" + hosts +
		"tls://.:" + byTLS + " {\n bind 127.0.0.1\n tls cert.pem key.pem\n" + hosts + "https://.:" + byHTTPS + " {\n bind 127.0.0.1\n tls cert.pem key.pem\n" + hosts
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, dir)
	if descriptors > 0 {
		cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0"`, descriptors)}, cmd.Path)
		cmd.Path = "/bin/sh"
	}
	return &transports{startCommand(t, cmd, dir, plain), "127.0.0.1:" + byTLS, "127.0.0.1:" + byHTTPS, "127.0.0.1:" + pprof, "http://127.0.0.1:" + metrics + "/metrics"}
}

// serves asks by UDP, TCP and TLS until stop is closed, each time by a new connection, and returns how long each answer took.
func (s *transports) serves(t *testing.T, stop <-chan struct{}) map[string][]time.Duration {
	took := make(map[string][]time.Duration)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return took
		case <-tick.C:
		}
		for network, at := range map[string]string{"udp": s.dns, "tcp": s.dns, "tcp-tls": s.tls} {
			c := dns.Client{Net: network, Timeout: 10 * time.Second, TLSConfig: &tls.Config{InsecureSkipVerify: true}}
			began := time.Now()
			m, _, err := c.Exchange(new(dns.Msg).SetQuestion("x.example.", dns.TypeA), at)
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("by %s: %v %v", network, m, err)
				return nil
			}
			took[network] = append(took[network], time.Since(began))
		}
	}
}

// has reports whether the server has a socket among its descriptors, which may be one that the kernel has ended.
func (s *transports) has(inode string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Error(err)
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// goroutines returns those of the server, by what they do.
func (s *transports) goroutines() string {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + s.pprof + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// eventually waits until something holds.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("after %s: %s", limit, what)
			return
		}
	}
}

// memory returns how many bytes of memory the server has.
func (s *server) memory(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	if m := regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`).FindSubmatch(text); m != nil {
		if n, err := strconv.ParseInt(string(m[1]), 10, 64); err == nil {
			return n << 10
		}
	}
	t.Errorf("no memory: %s", text)
	return 0
}

// bounded compares what memory the server has at most with room for more than before. The race detector has some times as much.
func (s *server) bounded(t *testing.T, before, most, room int64) {
	t.Helper()
	if raceDetector {
		room *= 5
	}
	if t.Logf("%d MiB of memory before, %d MiB at most", before>>20, most>>20); most-before > room {
		t.Errorf("%d MiB came, more than %d", (most-before)>>20, room>>20)
	}
}

// TestD20Stalled: a client that asks for large answers and never reads them has its connection ended by the kernel, with its descriptor and
// goroutines, whatever it speaks. Others are answered meanwhile.
func TestD20Stalled(t *testing.T) {
	t.Parallel()
	s := startTransports(t, 0)
	stop := make(chan struct{})
	var others, stalled sync.WaitGroup
	others.Go(func() {
		if len(s.serves(t, stop)) == 0 {
			t.Error("nobody else was answered")
		}
	})
	before := s.memory(t)
	query, err := new(dns.Msg).SetQuestion("big.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat(append([]byte{byte(len(query) >> 8), byte(len(query))}, query...), 1000)
	secret := &tls.Config{InsecureSkipVerify: true}
	for _, tt := range []struct {
		name, at string
		shake    func(net.Conn) (net.Conn, error)
		ask      func(io.Writer) error
	}{
		{"TCP", s.dns, func(c net.Conn) (net.Conn, error) { return c, nil }, func(w io.Writer) error { _, err := w.Write(plain); return err }},
		{"TLS", s.tls, func(c net.Conn) (net.Conn, error) {
			c2 := tls.Client(c, secret)
			return c2, c2.Handshake()
		}, func(w io.Writer) error { _, err := w.Write(plain); return err }},
		{"HTTPS", s.https, func(c net.Conn) (net.Conn, error) {
			c2 := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err := c2.Handshake(); err != nil {
				return nil, err
			}
			return c2, beginHTTP2(c2)
		}, askHTTP2(query)},
	} {
		stalled.Go(func() {
			raw, err := net.Dial("tcp", tt.at)
			if err != nil {
				t.Error(err)
				return
			}
			defer raw.Close()
			if err := raw.(*net.TCPConn).SetReadBuffer(4096); err != nil {
				t.Error(err)
			}
			conn, err := tt.shake(raw)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				return
			}
			began, inode := time.Now(), ""
			eventually(t, 10*time.Second, tt.name+": the connection isn't accepted", func() bool {
				inode = accepted(t, raw.RemoteAddr(), raw.LocalAddr())
				return inode != "0" // it waits for that
			})
			if !s.has(inode) {
				t.Errorf("%s: the server has no socket %q", tt.name, inode)
			}
			asked, times := make(chan struct{}), 0
			go func() {
				defer close(asked)
				for tt.ask(conn) == nil { // until nothing more is taken, and the connection ends
					times++
				}
			}()
			eventually(t, 13*time.Second, tt.name+": the connection of a client that never reads is still there", func() bool { return accepted(t, raw.RemoteAddr(), raw.LocalAddr()) == "" })
			t.Logf("%s: ended after %s", tt.name, time.Since(began).Round(time.Millisecond))
			eventually(t, 10*time.Second, tt.name+": its descriptor is left", func() bool { return !s.has(inode) })
			raw.Close()
			<-asked
			if t.Logf("%s: %d writes of queries", tt.name, times); tt.name == "TCP" && times < 10 {
				t.Errorf("%s: fewer than 10,000 queries were taken", tt.name)
			}
		})
	}
	stalled.Wait()
	s.bounded(t, before, s.memory(t), 64<<20) // the answers to all that was asked by TCP alone have some hundreds of MiB
	close(stop)
	others.Wait()
	eventually(t, 10*time.Second, "goroutines are left", func() bool {
		all := s.goroutines()
		return !strings.Contains(all, "serveTCPConn") && !strings.Contains(all, "http2")
	})
}

// beginHTTP2 begins as a client that lets a server send as much as it has.
func beginHTTP2(w io.ReadWriter) error {
	if _, err := io.WriteString(w, http2.ClientPreface); err != nil {
		return err
	}
	f := http2.NewFramer(w, nil)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}); err != nil {
		return err
	}
	return f.WriteWindowUpdate(0, 1<<30)
}

// askHTTP2 returns what sends the next requests of a connection.
func askHTTP2(query []byte) func(io.Writer) error {
	path := "/dns-query?dns=" + base64.RawURLEncoding.EncodeToString(query)
	stream := uint32(1)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	return func(w io.Writer) error {
		var out bytes.Buffer
		f := http2.NewFramer(&out, nil)
		for range 100 {
			block.Reset()
			for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "dns.example"}, {":path", path}} {
				if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
					return err
				}
			}
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
				return err
			}
			stream += 2
		}
		_, err := w.Write(out.Bytes())
		return err
	}
}

// accepted returns the inode of a connection's end at an address, "" where the kernel has none. The other end may hear late of that.
func accepted(t *testing.T, at, from net.Addr) string {
	for _, c := range established(t) {
		if c.at.String() == at.String() && c.from.String() == from.String() {
			return c.inode
		}
	}
	return ""
}

type connection struct {
	at, from netip.AddrPort
	inode    string
}

// established returns both ends of the connections of this machine by IPv4, proc_net_tcp(5).
func established(t *testing.T) (all []connection) {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Error(err)
		return nil
	}
	parse := func(word string) netip.AddrPort {
		var addr uint32
		var port uint16
		if _, err := fmt.Sscanf(word, "%08X:%04X", &addr, &port); err != nil {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(addr), byte(addr >> 8), byte(addr >> 16), byte(addr >> 24)}), port)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 9 && f[3] == "01" {
			all = append(all, connection{parse(f[1]), parse(f[2]), f[9]})
		}
	}
	return all
}

// TestD11Idle: clients that say nothing, nothing more, less than they have announced or a byte a second have their connections ended (RFC 7766
// section 6.2.3), however many they are. Others are answered meanwhile as if they weren't there.
func TestD11Idle(t *testing.T) {
	t.Parallel()
	const (
		limit   = 10*time.Second + 2*time.Second // CoreDNS's time is 3 seconds for the first query, and 10 for another
		least   = 2 * time.Second                // before that it wouldn't be time that has ended it
		sources = 8                              // none has more than its share
	)
	s := startTransports(t, 0)
	query, err := new(dns.Msg).SetQuestion("x.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	message := append([]byte{0, byte(len(query))}, query...)
	asks := func(conn net.Conn) error {
		m, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("x.example.", dns.TypeA), &dns.Conn{Conn: conn})
		if err == nil && len(m.Answer) != 1 {
			err = errors.New(m.String())
		}
		return err
	}
	says := func(b []byte) func(net.Conn) error {
		return func(conn net.Conn) error { _, err := conn.Write(b); return err }
	}
	stop := make(chan struct{})
	var others, idle sync.WaitGroup
	var took map[string][]time.Duration
	quit := sync.OnceFunc(func() { close(stop); idle.Wait(); others.Wait() })
	defer quit()
	opened, first := 0, time.Now()
	for _, tt := range []struct {
		name, at string
		many     int
		begin    func(net.Conn) error
		drips    bool // the message, a byte a second
	}{
		{"says nothing", s.dns, 300, says(nil), false},
		{"less than the length", s.dns, 250, says(message[:len(message)-1]), false},
		{"half of the length", s.dns, 50, says(message[:1]), false},
		{"length 0", s.dns, 200, says([]byte{0, 0}), false},
		{"a byte a second", s.dns, 200, says(nil), true},
		{"asks once", s.dns, 50, asks, false},
		{"asks once, and a byte a second", s.dns, 50, asks, true},
		{"TLS", s.tls, 50, says(nil), false},
		{"HTTPS", s.https, 50, says(nil), false},
	} {
		for range tt.many {
			opened++
			d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(11+opened%sources))}}
			conn, err := d.Dial("tcp", tt.at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			if err := tt.begin(conn); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if tt.drips {
				idle.Go(func() {
					for _, b := range message {
						select {
						case <-stop:
							return
						case <-time.After(time.Second):
						}
						if _, err := conn.Write([]byte{b}); err != nil {
							return
						}
					}
				})
			}
			idle.Go(func() {
				conn.SetReadDeadline(began.Add(limit))
				n, err := io.Copy(io.Discard, conn)
				if lasted := time.Since(began); errors.Is(err, os.ErrDeadlineExceeded) || lasted < least || n > 0 && tt.at == s.dns {
					t.Errorf("%s: %d bytes and %v after %s", tt.name, n, err, lasted)
				}
			})
		}
	}
	if n := s.connections(t); n < 1000 && time.Since(first) < least {
		t.Errorf("%d of %d connections are left", n, opened)
	}
	others.Go(func() { took = s.serves(t, stop) })
	idle.Wait()
	quit()
	for _, network := range []string{"udp", "tcp", "tcp-tls"} {
		all := slices.Sorted(slices.Values(took[network]))
		if len(all) < 20 {
			t.Errorf("%d answers by %s", len(all), network)
			continue
		}
		t.Logf("%d answers by %s: median %s, slowest %s", len(all), network, all[len(all)/2], all[len(all)-1])
		if all[len(all)/2] > 100*time.Millisecond || all[len(all)-1] > time.Second {
			t.Errorf("by %s: median %s, slowest %s", network, all[len(all)/2], all[len(all)-1])
		}
	}
}

// connections returns how many of its clients the server has by DNS, TLS and HTTPS.
func (s *transports) connections(t *testing.T) (n int) {
	for _, c := range established(t) {
		if at := c.at.String(); at == s.dns || at == s.tls || at == s.https {
			n++
		}
	}
	return n
}

// TestD20Crowd: where one source has more connections than its share, and even all descriptors of the process, those too many are ended. Those
// of others are not, and new ones are answered.
func TestD20Crowd(t *testing.T) {
	t.Parallel()
	const room = 1024
	s := startTransports(t, room)
	from := func(host string) *net.Dialer {
		return &net.Dialer{Timeout: 20 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
	}
	ask := func(conn *dns.Conn) error {
		m, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("x.example.", dns.TypeA), conn)
		if err == nil && len(m.Answer) != 1 {
			err = errors.New(m.String())
		}
		return err
	}
	dial := func(host string) (*dns.Conn, error) {
		conn, err := from(host).Dial("tcp", s.dns)
		return &dns.Conn{Conn: conn}, err
	}
	good, err := dial("127.0.0.8")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	stop := make(chan struct{})
	var others sync.WaitGroup
	var asked atomic.Int64
	others.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if err := ask(good); err != nil {
				t.Errorf("the connection of another source: %v", err)
				return
			}
			asked.Add(1)
		}
	})
	query, err := new(dns.Msg).SetQuestion("x.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for i := range room + 200 {
		conn, err := (&net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}).Dial("tcp", s.dns)
		if err != nil && i > room/clientsOfFiles { // it has come too fast
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := (&dns.Conn{Conn: conn}).Write(query); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
	s.await("connections of clients of DNS were ended")
	for _, host := range []string{"127.0.0.8", "127.0.0.7"} {
		conn, err := dial(host)
		if err == nil {
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			err = ask(conn)
			conn.Close()
		}
		if err != nil {
			t.Errorf("a new connection of %s: %v", host, err)
		}
	}
	at := netip.MustParseAddrPort(s.dns)
	eventually(t, 20*time.Second, "the source still has more than its share", func() bool {
		of := 0
		for _, c := range established(t) {
			if c.at == at && c.from.Addr() == netip.MustParseAddr("127.0.0.9") {
				of++
			}
		}
		return of <= mostClients(room, 0)/clientsOfOne
	})
	close(stop)
	others.Wait()
	if asked.Load() == 0 {
		t.Error("the other source has asked nothing")
	}
}
