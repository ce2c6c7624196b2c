package frontend

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/hello/rawhello"
	"github.com/postern-link/postern/proxy/header"
)

// probe is a check that runs.
type probe struct {
	cfg         Config
	name, other *site // the client was let in for name and wants other
	swap        bool  // they are not those of the configuration, but the other way around
	old, recent *bool // whether TLS 1.2 and 1.3 are spoken, once it is known
}

// ErrUnreachable is that of a check that couldn't be made.
var ErrUnreachable = errors.New("the front end doesn't serve both sites as they should be")

// newProbe fetches both sites, twice each.
func newProbe(ctx context.Context, cfg Config) (*probe, error) {
	cfg.Path, cfg.Timeout = cmp.Or(cfg.Path, "/"), cmp.Or(cfg.Timeout, 10*time.Second)
	p := &probe{cfg: cfg}
	for _, s := range []struct {
		name link.Name
		at   **site
		text bool // whether it should have the expected text
	}{{cfg.Name, &p.name, false}, {cfg.Other, &p.other, true}} {
		var got [2]*reply
		for i := range got {
			o := p.fetch(ctx, &site{name: s.name})
			if o.reply == nil {
				return nil, fmt.Errorf("%w: %s at %s: %s%s", ErrUnreachable, s.name, cfg.Addr, o, p.hint(o))
			}
			if cfg.Expect != "" && o.reply.expect != s.text {
				return nil, fmt.Errorf("%w: the answer of %s (%d): has the expected text: %t, should have it: %t", ErrUnreachable, s.name, o.reply.status, o.reply.expect, s.text)
			}
			got[i] = o.reply
		}
		var err error
		if *s.at, err = newSite(s.name, got[0], got[1]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
	if err := p.equalSites(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return p, nil
}

// hint says which flag may be missing.
func (p *probe) hint(o outcome) string {
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(o.err, &unverified):
		return " (--ca names certificates to trust, --insecure trusts any)"
	case p.cfg.Header == "" || p.cfg.Header == link.ProxyOff:
		return " (if it expects a PROXY header: --proxy-protocol)"
	}
	return ""
}

// outcome is what became of one connection.
type outcome struct {
	reply   *reply // nil: none came
	refused bool   // the server ended it, with an alert or without
	err     error
	state   rawhello.State
	resumed bool
}

// String says in a few words what was seen.
func (o outcome) String() string {
	var alert rawhello.Alert
	switch {
	case o.reply != nil:
		return fmt.Sprintf("answered %d", o.reply.status)
	case errors.As(o.err, &alert):
		return alert.Error()
	case o.refused:
		return "connection closed"
	case errors.Is(o.err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case o.err != nil:
		return short(o.err.Error())
	}
	return "nothing"
}

// short bounds what is quoted of an error, which may quote the server.
func short(s string) string {
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "..."
	}
	return s
}

// ended makes an error an outcome.
func ended(o outcome, err error) outcome {
	var alert rawhello.Alert
	var remote *net.OpError
	var stream http2.StreamError
	o.err = err
	o.refused = errors.As(err, &alert) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.As(err, &stream) ||
		errors.As(err, &remote) && remote.Op == "remote error" // an alert, as crypto/tls has it
	return o
}

// dial connects and sends the PROXY header that is expected. The deadline is for all that follows.
func (p *probe) dial(ctx context.Context) (net.Conn, error) {
	conn, err := p.dialBare(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(p.header(conn, p.cfg.Header, p.cfg.LinkID, p.name)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// dialBare connects and sends nothing.
func (p *probe) dialBare(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: p.cfg.Timeout}
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, "tcp", p.cfg.Addr)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(p.cfg.Timeout))
}

// header returns a PROXY header as Postern writes it for a client that was let in for a site.
func (p *probe) header(conn net.Conn, kind link.ProxyProtocol, id link.LinkID, s *site) []byte {
	if kind == "" {
		kind = link.ProxyOff
	}
	f := header.Flow{Source: address(conn.LocalAddr()), Local: address(conn.RemoteAddr()), LinkID: id}
	if s != nil {
		f.Name = s.name
	}
	b, _ := header.Append(nil, kind, f)
	return b
}

func address(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// config is that of a well-behaved client.
func (p *probe) config(name link.Name) *tls.Config {
	return &tls.Config{ServerName: string(name), InsecureSkipVerify: p.cfg.Insecure, RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS12}
}

// fetch requests a site as it should be, on a connection of its own.
func (p *probe) fetch(ctx context.Context, s *site) outcome {
	q := *p
	q.name = s // the PROXY header is that of a client for this site
	return q.get(ctx, q.config(s.name), request(p.cfg.Path, string(s.name)))
}

// request is a GET whose connection ends with it.
func request(target string, hosts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\n", target)
	for _, h := range hosts {
		fmt.Fprintf(&b, "Host: %s\r\n", h)
	}
	b.WriteString(fields + "Connection: close\r\n\r\n")
	return b.String()
}

const fields = "User-Agent: " + agent + "\r\nAccept: */*\r\n"
const agent = "postern-check-provider"

// get sends a request over a well-behaved TLS connection, and reads the answer.
func (p *probe) get(ctx context.Context, cfg *tls.Config, text string) outcome {
	conn, err := p.dial(ctx)
	if err != nil {
		return outcome{err: err}
	}
	defer conn.Close()
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return ended(outcome{}, err)
	}
	o := p.answers(c, text, 1)
	o.resumed = c.ConnectionState().DidResume
	return o
}

// answers sends requests and returns what became of the last of n.
func (p *probe) answers(c io.ReadWriter, text string, n int) outcome {
	if _, err := io.WriteString(c, text); err != nil {
		return ended(outcome{}, err)
	}
	r := bufio.NewReader(io.LimitReader(c, int64(n)*(maxHeader+2*maxBody)))
	for {
		a, err := readReply(r, p.cfg.Expect)
		if err != nil {
			return ended(outcome{}, err)
		}
		if n--; n == 0 {
			return outcome{reply: a}
		}
	}
}

// raw is get over a connection that begins with any hello. Before goes first.
func (p *probe) raw(ctx context.Context, cfg rawhello.Config, text string, before ...byte) (outcome, *rawhello.Session) {
	conn, err := p.dial(ctx)
	if err != nil {
		return outcome{err: err}, nil
	}
	defer conn.Close()
	return p.over(conn, cfg, text, before)
}

func (p *probe) over(conn net.Conn, cfg rawhello.Config, text string, before []byte) (outcome, *rawhello.Session) {
	if len(before) > 0 {
		if _, err := conn.Write(before); err != nil {
			return ended(outcome{}, err), nil
		}
	}
	c, err := rawhello.Handshake(conn, cfg)
	o := outcome{state: c.State(), resumed: c.State().Resumed}
	if err != nil {
		return ended(o, err), nil
	}
	got := p.answers(c, text, 1)
	got.state, got.resumed = o.state, o.resumed
	return got, c.Session()
}

// speaks reports whether the front end speaks a version of TLS. With an error it isn't known.
func (p *probe) speaks(ctx context.Context, version uint16) (bool, error) {
	known, h := &p.recent, rawhello.New(string(p.name.name)).Set(rawhello.Versions(rawhello.TLS13))
	if version == rawhello.TLS12 {
		known, h = &p.old, rawhello.New12(string(p.name.name))
	}
	if *known != nil {
		return **known, nil
	}
	o, _ := p.raw(ctx, rawhello.Config{Hello: h}, request(p.cfg.Path, string(p.name.name)))
	var alert rawhello.Alert
	yes := o.state.Version == version
	if !yes && !(errors.As(o.err, &alert) && alert.Code == alertVersion) {
		return false, fmt.Errorf("a hello of version %04x: %s", version, o)
	}
	*known = &yes
	return yes, nil
}

const alertVersion = 70 // protocol_version
