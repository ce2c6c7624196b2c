package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync"

	"github.com/miekg/dns"
)

// miss is a query that the plugins answer.
type miss struct {
	addr   net.UDPAddr // of the client
	parcel parcel      // of the answer
	query  []byte      // as it came
	learn  bool        // the answer may be kept

	mu     sync.Mutex
	answer []byte
	writes int
}

// serveMiss has the plugins answer a query, and keeps the answer.
func (s *socket) serveMiss(m *miss) {
	w := &response{miss: m, socket: s}
	r := w.accept()
	if r == nil {
		return
	}
	t := s.group.enter()
	defer t.leave()
	a := t.Backend.Serve(w, r, m.learn)
	if a == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writes == 1 {
		t.keep(m.query, m.answer, a, m.addr.IP.To4() == nil)
	}
}

// response takes the answer to a query, as that of a [dns.Server] without secrets for TSIG (RFC 8945) does, which CoreDNS's is without the
// plugin tsig. It implements [dns.ResponseWriter].
type response struct {
	*miss
	socket *socket
	signed bool // the query is
	closed bool
}

// errClosed is what is said to a plugin that writes after it has closed.
var errClosed = errors.New("dns: the response is closed")

// accept returns the query if it is for the plugins. Others it has answered as a [dns.Server] does: with FORMERR or NOTIMP, or not at all.
func (w *response) accept() *dns.Msg {
	b := w.query
	if len(b) < headerSize {
		return nil
	}
	at := func(i int) uint16 { return binary.BigEndian.Uint16(b[i:]) }
	r := new(dns.Msg)
	// CoreDNS takes other opcodes where a plugin asks for them. None that is built in does.
	switch dns.DefaultMsgAcceptFunc(dns.Header{Id: at(0), Bits: at(2), Qdcount: at(4), Ancount: at(6), Nscount: at(8), Arcount: at(10)}) {
	case dns.MsgAccept:
		if r.Unpack(b) == nil {
			w.signed = r.IsTsig() != nil
			return r
		}
		w.refuse(r, dns.RcodeFormatError)
	case dns.MsgReject:
		w.refuse(header(b), dns.RcodeFormatError)
	case dns.MsgRejectNotImplemented:
		w.refuse(header(b), dns.RcodeNotImplemented)
	case dns.MsgIgnore:
	}
	return nil
}

// header reads the header of a message alone.
func header(b []byte) *dns.Msg {
	alone := [headerSize]byte(b)
	clear(alone[4:]) // what there is of each section
	r := new(dns.Msg)
	_ = r.Unpack(alone[:]) // a header can't be wrong
	return r
}

// refuse answers a message that is no query, with what could be read of its header and its question.
func (w *response) refuse(r *dns.Msg, rcode int) {
	opcode := r.Opcode
	r.SetRcodeFormatError(r)
	if rcode == dns.RcodeNotImplemented {
		r.Opcode, r.Rcode = opcode, rcode
	}
	r.Zero = false
	r.Answer, r.Ns, r.Extra = nil, nil, nil
	_ = w.WriteMsg(r)
}

// WriteMsg implements [dns.ResponseWriter].
func (w *response) WriteMsg(m *dns.Msg) error {
	switch {
	case w.closed:
		return errClosed
	case m.IsTsig() != nil:
		return dns.ErrSecret
	}
	b, err := m.Pack()
	if err != nil {
		return err
	}
	return w.write(b)
}

// Write implements [dns.ResponseWriter].
func (w *response) Write(b []byte) (int, error) {
	if w.closed {
		return 0, errClosed
	}
	if err := w.write(bytes.Clone(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// write sends an answer that nobody else changes.
func (w *response) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	w.mu.Lock()
	w.answer = b
	w.writes++
	w.mu.Unlock()
	if err := w.socket.work.reply(&w.parcel, b); err != nil {
		return &net.OpError{Op: "write", Net: "udp", Source: w.LocalAddr(), Addr: &w.addr, Err: err}
	}
	return nil
}

// LocalAddr implements [dns.ResponseWriter].
func (w *response) LocalAddr() net.Addr { return w.socket.conn.LocalAddr() }

// RemoteAddr implements [dns.ResponseWriter].
func (w *response) RemoteAddr() net.Addr { return &w.addr }

// TsigStatus implements [dns.ResponseWriter].
func (w *response) TsigStatus() error {
	if !w.signed {
		return nil
	}
	return dns.TsigVerifyWithProvider(bytes.Clone(w.query), secretless{}, "", false)
}

// secretless is a [dns.TsigProvider] that knows no secret.
type secretless struct{}

// Generate implements [dns.TsigProvider].
func (secretless) Generate([]byte, *dns.TSIG) ([]byte, error) { return nil, dns.ErrSecret }

// Verify implements [dns.TsigProvider].
func (secretless) Verify([]byte, *dns.TSIG) error { return dns.ErrSecret }

// TsigTimersOnly implements [dns.ResponseWriter]: nothing is signed.
func (w *response) TsigTimersOnly(bool) {}

// Close implements [dns.ResponseWriter].
func (w *response) Close() error {
	if w.closed {
		return errClosed
	}
	w.closed = true
	return nil
}

// Hijack implements [dns.ResponseWriter]: there is no connection to be taken.
func (w *response) Hijack() {}
