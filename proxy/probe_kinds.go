package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/proxy/engine"
)

// words are what a probe says to a target and wants to hear, once it is connected.
type words struct {
	link.Probe
	host link.Name // the service's first name that is no pattern; "": it has none
}

// wordsOf returns those of a service. Services that ask the same have equal ones.
func wordsOf(v *link.Service) words {
	w := words{Probe: v.Probe}
	if w.Kind == "" || w.Kind == link.ProbeTCP {
		return words{}
	}
	for _, n := range v.Names {
		if !strings.HasPrefix(string(n.Public), "*") {
			w.host = n.Public
			break
		}
	}
	if w.Kind == link.ProbeTLS && w.Name != "" {
		w.host = ""
	}
	return w
}

// unfit is the error of a target that was connected to and didn't do what its probe asks for.
type unfit struct{ err error }

func (u unfit) Error() string { return u.err.Error() }
func (u unfit) Unwrap() error { return u.err }

// ask has the target answer. What is read of it is bounded; all errors are its fault, unless conn was reset.
func (w words) ask(ctx context.Context, conn engine.Conn, addr netip.AddrPort) error {
	var err error
	switch w.Kind {
	case link.ProbeTLS:
		err = w.askTLS(ctx, conn)
	case link.ProbeHTTP:
		err = w.askHTTP(conn, addr)
	}
	if err != nil {
		return unfit{fmt.Errorf("probe %s %v: %w", w.Kind, addr, err)}
	}
	return nil
}

// askTLS comes to the end of a handshake. Whose certificate it is isn't judged: a probe asks whether the target works, and
// sends nothing. Who it is, clients find out.
func (w words) askTLS(ctx context.Context, conn engine.Conn) error {
	name := w.Name
	if name == "" {
		name = w.host
	}
	return tls.Client(stream{conn}, &tls.Config{ServerName: string(name), InsecureSkipVerify: true}).HandshakeContext(ctx)
}

// askHTTP sends a GET (RFC 9112), and reads the status of the answer and no more.
func (w words) askHTTP(conn engine.Conn, addr netip.AddrPort) error {
	host := string(w.host)
	if host == "" {
		host = addr.String()
	}
	if _, err := io.WriteString(conn, "GET "+w.Path+" HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: postern-probe\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	status, err := readStatus(conn)
	switch {
	case err != nil:
		return err
	case w.Status == 0 && status < 400, w.Status == status:
		return nil
	}
	return fmt.Errorf("status %d", status)
}

// Bounds of what is read of an answer: a target could send interim answers without end.
const (
	maxAnswer  = 16 << 10
	answerLine = 1 << 10
)

// readStatus reads an HTTP answer up to its status, past those of interim answers (RFC 9110, 15.2). The status is
// 200 to 599.
func readStatus(r io.Reader) (int, error) {
	in := bufio.NewReaderSize(io.LimitReader(r, maxAnswer), answerLine)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("no status: %w", err)
		}
		status := statusOf(line)
		switch {
		case status < 100 || status > 599:
			return 0, fmt.Errorf("no status: %.40q", line)
		case status >= 200:
			return status, nil
		}
		for len(bytes.TrimRight(line, "\r\n")) > 0 {
			if line, err = in.ReadSlice('\n'); err != nil {
				return 0, fmt.Errorf("no end of an interim answer: %w", err)
			}
		}
	}
}

// statusOf returns the status of a status line (RFC 9112, 4), 0 for what isn't one.
func statusOf(line []byte) int {
	version, rest, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
	code, _, _ := bytes.Cut(rest, []byte(" "))
	if v := string(version); v != "HTTP/1.1" && v != "HTTP/1.0" || len(code) != 3 {
		return 0
	}
	status, err := strconv.ParseUint(string(code), 10, 16)
	if err != nil {
		return 0
	}
	return int(status)
}

// stream is a connection as the TLS client wants it. Its addresses are nobody's business.
type stream struct{ engine.Conn }

func (stream) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (stream) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline implements [net.Conn].
func (s stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}
