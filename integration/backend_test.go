package integration

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	armon "github.com/armon/go-proxyproto"
	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/rogpeppe/go-internal/testscript"
)

// backend is a provider of ours, for what stock servers can't show: the link ID of a connection. It reads the
// PROXY header with the libraries that providers use, and speaks lines:
//
//	who             answers what it knows of the connection
//	GET ...         the same as an HTTP answer, then closes
//	late 2s         waits for the client's end, then so long, then answers how much it received
//	flood           sends as fast as it is read, for ever
//	reset           resets the connection
//	anything else   comes back
type backend struct {
	ln     net.Listener
	header string // v2, v1, off
	tls    bool
	out    *output
	wait   sync.WaitGroup
	closed chan struct{}
	mu     sync.Mutex
	conns  map[net.Conn]struct{} // nil once closed
}

// identity is what a provider knows of a connection.
type identity struct {
	link                   string // the link ID of the Azure TLV
	source, via            string // client as of the header, peer of the TCP connection
	authority, unique, sni string
}

func (i identity) String() string {
	return fmt.Sprintf("link=%s source=%s via=%s authority=%s unique=%s sni=%s", i.link, i.source, i.via, i.authority, i.unique, i.sni)
}

// cmdBackend: backend NAME HOST ADDR:PORT v2|v1|off [tls] starts one; backend NAME close ends it.
func cmdBackend(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if !neg && len(args) == 2 && args[1] == "close" {
		b := s.backends[args[0]]
		usage(ts, b != nil, "backend NAME close, of one that was started")
		s.act()
		b.close()
		return
	}
	usage(ts, !neg && len(args) >= 4 && len(args) <= 5, "backend NAME HOST ADDR:PORT v2|v1|off [tls]")
	b := &backend{header: args[3], tls: len(args) == 5, out: newOutput(), closed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	usage(ts, slices.Contains([]string{"v2", "v1", "off"}, b.header) && (!b.tls || args[4] == "tls"), "backend NAME HOST ADDR:PORT v2|v1|off [tls]")
	s.act()
	ts.Check(s.host(ts, args[1]).enter(func() (err error) {
		b.ln, err = net.Listen("tcp", args[2])
		return err
	}))
	s.backends[args[0]] = b
	b.wait.Go(b.serve)
}

// cmdSeen: [!] seen NAME PATTERN waits until a backend has noted something; with "!" it must not have, by now.
func cmdSeen(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "[!] seen NAME PATTERN")
	b := of(ts).backends[args[0]]
	usage(ts, b != nil, "[!] seen NAME PATTERN, of a backend that was started")
	re := pattern(ts, args[1])
	if neg {
		if m := re.FindString(b.out.String()); m != "" {
			ts.Fatalf("%s saw %q", args[0], m)
		}
		return
	}
	m := b.out.find(re, 0, eventuallyTimeout, nil)
	if m == "" {
		ts.Fatalf("%s hasn't seen %q:\n%s", args[0], args[1], tail(b.out.String(), 2000))
	}
	say(ts, "%s", m)
}

func (b *backend) serve() {
	for {
		conn, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		if b.conns == nil {
			conn.Close()
		} else {
			b.conns[conn] = struct{}{}
			b.wait.Go(func() { b.handle(conn) })
		}
		b.mu.Unlock()
	}
}

func (b *backend) handle(raw net.Conn) {
	defer func() {
		raw.Close()
		b.mu.Lock()
		delete(b.conns, raw)
		b.mu.Unlock()
	}()
	who := identity{via: raw.RemoteAddr().String()}
	conn, first, err := b.unwrap(raw, &who)
	if err != nil {
		// A probe of the node's, or a client that was refused after the dial: which must not happen,
		// so that scenarios look for this line.
		if errors.Is(err, errProbe) {
			fmt.Fprintf(b.out, "probe via=%s\n", who.via)
		} else {
			fmt.Fprintf(b.out, "broken via=%s: %v\n", who.via, err)
		}
		return
	}
	fmt.Fprintf(b.out, "connection %v\n", who)
	in := bufio.NewReader(io.MultiReader(strings.NewReader(first), conn))
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch word, arg, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "who":
			_, err = fmt.Fprintln(conn, who)
		case "GET":
			for line != "\r\n" && err == nil {
				line, err = in.ReadString('\n')
			}
			body := who.String() + "\n"
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
			return
		case "late":
			d, _ := time.ParseDuration(arg)
			n, _ := io.Copy(io.Discard, in)
			select {
			case <-time.After(d): // the lateness itself is the test
			case <-b.closed:
			}
			fmt.Fprintf(conn, "late answer after %d bytes\n", n)
			return
		case "flood":
			line := strings.Repeat("flood ", 2000) + "\n"
			for err == nil {
				_, err = io.WriteString(conn, line)
			}
		case "reset":
			_ = raw.(*net.TCPConn).SetLinger(0)
			return
		default:
			_, err = io.WriteString(conn, line)
		}
		if err != nil {
			return
		}
	}
}

var errProbe = errors.New("a probe")

// unwrap reads the PROXY header and does the TLS handshake. A connection that ends before its first byte, or whose
// header says LOCAL, is a probe.
func (b *backend) unwrap(raw net.Conn, who *identity) (conn net.Conn, first string, err error) {
	conn = raw
	_ = raw.SetReadDeadline(time.Now().Add(time.Minute))
	switch b.header {
	case "v2":
		in := bufio.NewReader(raw)
		h, err := proxyproto.Read(in)
		if err != nil {
			return nil, "", probeIfEmpty(err, in.Buffered() == 0)
		}
		if h.Command.IsLocal() {
			return nil, "", errProbe
		}
		if err := who.read(h); err != nil {
			return nil, "", err
		}
		conn = &buffered{raw, in}
	case "v1":
		c := armon.NewConn(raw, 0)
		conn, who.source = c, c.RemoteAddr().String()
		if who.source == who.via {
			return nil, "", errProbe // armon falls back to the peer where there is no header
		}
	}
	if b.tls {
		c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pki.leaf}})
		if err := c.Handshake(); err != nil {
			return nil, "", probeIfEmpty(err, b.header == "off")
		}
		who.sni, conn = c.ConnectionState().ServerName, c
	} else if b.header != "v2" {
		// Without a header only the first byte tells a client from a probe.
		var one [1]byte
		if _, err := io.ReadFull(conn, one[:]); err != nil {
			return nil, "", errProbe
		}
		first = string(one[:])
	}
	return conn, first, raw.SetReadDeadline(time.Time{})
}

func probeIfEmpty(err error, empty bool) error {
	if empty && (errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)) {
		return errProbe
	}
	return err
}

func (i *identity) read(h *proxyproto.Header) error {
	i.source = h.SourceAddr.String()
	tlvs, err := h.TLVs()
	if err != nil {
		return err
	}
	if id, ok := tlvparse.FindAzurePrivateEndpointLinkID(tlvs); ok {
		i.link = fmt.Sprintf("%08x", id)
	}
	for _, t := range tlvs {
		switch t.Type {
		case proxyproto.PP2_TYPE_AUTHORITY:
			i.authority = string(t.Value)
		case proxyproto.PP2_TYPE_UNIQUE_ID:
			i.unique = fmt.Sprintf("%x", t.Value)
		}
	}
	return nil
}

func (b *backend) close() {
	b.ln.Close()
	b.mu.Lock()
	if b.conns != nil {
		close(b.closed)
	}
	for c := range b.conns {
		c.Close()
	}
	b.conns = nil
	b.mu.Unlock()
	b.wait.Wait()
}

// buffered is a connection whose first bytes were read into a buffer.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (c *buffered) Read(p []byte) (int, error) { return c.in.Read(p) }

// dial connects from a host; the deadline holds for the dial alone.
func (h *host) dial(addr string, timeout time.Duration) (conn net.Conn, err error) {
	network := "tcp4"
	if a, perr := netip.ParseAddrPort(addr); perr == nil && a.Addr().Is6() {
		network = "tcp6"
	}
	err = h.enter(func() error {
		conn, err = (&net.Dialer{Timeout: timeout}).Dial(network, addr)
		return err
	})
	return conn, err
}
