package rawhello

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
)

// Session is a session of TLS 1.2 that a later hello can ask for, under whatever name.
type Session struct {
	// ID is the server's; empty if it keeps none.
	ID []byte
	// Ticket is the last one that the server sent (RFC 5077); empty: none.
	Ticket []byte

	suite  uint16
	master []byte
}

// Session returns the session of a connection of TLS 1.2, nil of any other.
func (c *Conn) Session() *Session { return c.session }

// ResumeID makes the hello ask for a session by its ID.
func (h *Hello) ResumeID(s *Session) *Hello {
	h.SessionID, h.session = s.ID, s
	return h
}

// ResumeTicket makes the hello ask for a session by its ticket. A server that takes it returns the session ID of the
// hello, which is therefore a new one (RFC 5077 section 3.4).
func (h *Hello) ResumeTicket(s *Session) *Hello {
	h.SessionID, h.session = make([]byte, 32), s
	_, _ = rand.Read(h.SessionID)
	return h.Set(Extension{ExtTicket, s.Ticket})
}

// Renegotiate asks for a second handshake inside of a connection of TLS 1.2, with another hello (RFC 5246 section 7.4.1.1,
// RFC 5746). Servers should refuse; where the error is nil the server took it.
func (c *Conn) Renegotiate(h *Hello) error {
	if c.state.Version != TLS12 {
		return errors.New("only TLS 1.2 renegotiates")
	}
	h = h.Clone().Set(Extension{ExtRenegotiation, append([]byte{byte(len(c.clientFinished))}, c.clientFinished...)})
	first := h.Message()
	if err := c.send(recordHandshake, first); err != nil {
		return err
	}
	return c.answer(Config{Hello: h}, first)
}

// flight12 is what a handshake of TLS 1.2 has so far.
type flight12 struct {
	transcript, randoms, master []byte
	extended                    bool // RFC 7627
}

// handshake12 goes on after the ServerHello of TLS 1.2. The transcript ends with it.
func (c *Conn) handshake12(h *Hello, s *serverHello, transcript []byte) error {
	f := &flight12{transcript: transcript, randoms: append(bytes.Clone(h.Random[:]), s.random...)}
	_, f.extended = s.extensions[ExtMasterSecret]
	c.state.ALPN = protocol(s.extensions[ExtALPN])
	c.state.Resumed = h.session != nil && len(s.sessionID) > 0 && bytes.Equal(s.sessionID, h.SessionID) && s.suite == h.session.suite
	if c.state.Resumed {
		session := *h.session
		c.session, f.master = &session, session.master
		if err := c.serverFinished(f); err != nil {
			return err
		}
		return c.clientFinish(f)
	}
	if err := c.exchange(h, f); err != nil {
		return err
	}
	c.session = &Session{ID: s.sessionID, suite: s.suite, master: f.master}
	if err := c.clientFinish(f); err != nil {
		return err
	}
	return c.serverFinished(f)
}

// exchange reads the server's flight and sends the client's, up to the master secret.
func (c *Conn) exchange(h *Hello, f *flight12) error {
	var point []byte
	var group uint16
	asked := false
	for {
		kind, whole, err := c.next()
		if err != nil {
			return err
		}
		f.transcript = append(f.transcript, whole...)
		switch kind {
		case typeCertificate:
			if err := c.certificates(whole[4:], false); err != nil {
				return err
			}
		case typeServerKey: // of a named curve; the signature behind it isn't looked at
			r := reader{b: whole[4:]}
			named := r.number(1)
			group, point = r.uint16(), r.vector8()
			if r.failed || named != 3 {
				return errors.New("the server's key exchange isn't that of a named curve")
			}
		case typeCertificateRequest:
			asked = true
		case typeHelloDone:
			if asked {
				none := message(typeCertificate, []byte{0, 0, 0})
				f.transcript = append(f.transcript, none...)
				if err := c.send(recordHandshake, none); err != nil {
					return err
				}
			}
			return c.clientKey(f, group, point)
		default:
			return fmt.Errorf("a message of type %d in the server's flight", kind)
		}
	}
}

// clientKey sends the client's key and derives the master secret.
func (c *Conn) clientKey(f *flight12, group uint16, point []byte) error {
	curve := curves[group]
	if curve == nil {
		return fmt.Errorf("the server chose group %d", group)
	}
	peer, err := curve.NewPublicKey(point)
	if err != nil {
		return err
	}
	key, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	shared, err := key.ECDH(peer)
	if err != nil {
		return err
	}
	public := key.PublicKey().Bytes()
	m := message(typeClientKey, append([]byte{byte(len(public))}, public...))
	f.transcript = append(f.transcript, m...)
	if f.extended {
		f.master = c.suite.prf(shared, "extended master secret", c.suite.sum(f.transcript), 48)
	} else {
		f.master = c.suite.prf(shared, "master secret", f.randoms, 48)
	}
	return c.send(recordHandshake, m)
}

// halves returns the directions of the client and of the server (RFC 5246 section 6.3, RFC 5288 section 3).
func (f *flight12) halves(su *suite) (client, server half) {
	seed := slices.Concat(f.randoms[32:], f.randoms[:32])
	r := reader{b: su.prf(f.master, "key expansion", seed, 2*su.key+8)}
	client.aead, server.aead = su.aead(r.take(su.key)), su.aead(r.take(su.key))
	client.iv, server.iv = r.take(4), r.take(4)
	return client, server
}

// clientFinish changes to the new keys and sends the client's Finished.
func (c *Conn) clientFinish(f *flight12) error {
	if err := c.send(recordCipherSpec, []byte{1}); err != nil {
		return err
	}
	c.out, _ = f.halves(c.suite)
	c.clientFinished = c.suite.prf(f.master, "client finished", c.suite.sum(f.transcript), 12)
	m := message(typeFinished, c.clientFinished)
	f.transcript = append(f.transcript, m...)
	return c.send(recordHandshake, m)
}

// serverFinished reads a ticket, if there is one, the change to the new keys, and the server's Finished.
func (c *Conn) serverFinished(f *flight12) error {
	for {
		kind, b, err := c.record()
		if err != nil {
			return err
		}
		if kind == recordCipherSpec {
			break
		}
		if kind != recordHandshake {
			return fmt.Errorf("a record of type %d in the handshake", kind)
		}
		c.body = append(c.body, b...)
		if len(c.body) > maxHandshake {
			return fmt.Errorf("a ticket of more than %d bytes", maxHandshake)
		}
	}
	if len(c.body) > 0 {
		kind, whole, err := c.next()
		if err != nil {
			return err
		}
		r := reader{b: whole[4:]}
		r.take(4) // lifetime
		ticket := r.vector16()
		if kind != typeNewTicket || r.failed || len(c.body) > 0 {
			return fmt.Errorf("a message of type %d before the server's Finished", kind)
		}
		c.session.Ticket = ticket
		f.transcript = append(f.transcript, whole...)
	}
	_, c.in = f.halves(c.suite)
	want := c.suite.prf(f.master, "server finished", c.suite.sum(f.transcript), 12)
	kind, whole, err := c.next()
	if err != nil {
		return err
	}
	if kind != typeFinished || !hmac.Equal(whole[4:], want) {
		return errors.New("the server's Finished is wrong")
	}
	f.transcript = append(f.transcript, whole...)
	return nil
}
