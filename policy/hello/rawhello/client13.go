package rawhello

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
)

// handshake13 goes on after the ServerHello of TLS 1.3. The transcript ends with it.
func (c *Conn) handshake13(h *Hello, s *serverHello, transcript []byte) error {
	share := reader{b: s.extensions[ExtKeyShare]}
	group, public := share.uint16(), share.vector16()
	key := h.keys[group]
	if share.failed || key == nil {
		return fmt.Errorf("the server chose group %d, of which it was sent no key", group)
	}
	c.state.Group = group
	peer, err := key.Curve().NewPublicKey(public)
	if err != nil {
		return err
	}
	shared, err := key.ECDH(peer)
	if err != nil {
		return err
	}
	su := c.suite
	none := make([]byte, su.hash().Size())
	early := su.extract(none, none)
	secret := su.extract(shared, su.derive(early, "derived", nil))
	server, client := su.derive(secret, "s hs traffic", transcript), su.derive(secret, "c hs traffic", transcript)
	c.in, c.out = su.half13(server), su.half13(client)
	asked, transcript, err := c.serverFlight(transcript, server)
	if err != nil {
		return err
	}
	secret = su.extract(none, su.derive(secret, "derived", nil))
	readKey, writeKey := su.derive(secret, "s ap traffic", transcript), su.derive(secret, "c ap traffic", transcript)
	if asked {
		none := message(typeCertificate, []byte{0, 0, 0, 0}) // no context, no certificate
		transcript = append(transcript, none...)
		if err := c.send(recordHandshake, none); err != nil {
			return err
		}
	}
	if err := c.send(recordHandshake, message(typeFinished, su.finished13(client, transcript))); err != nil {
		return err
	}
	c.in, c.out = su.half13(readKey), su.half13(writeKey)
	return nil
}

// serverFlight reads what the server sends under handshake keys, up to its Finished, which is checked: it proves that
// this client has read all that was sent as it was meant. It reports whether a certificate is asked for.
func (c *Conn) serverFlight(transcript, secret []byte) (asked bool, _ []byte, err error) {
	for {
		kind, whole, err := c.next()
		if err != nil {
			return false, nil, err
		}
		body := whole[4:]
		switch kind {
		case typeEncryptedExtensions:
			r := reader{b: body}
			all := r.extensions()
			if r.failed {
				return false, nil, errShort
			}
			_, c.state.RetryConfigs = all[ExtECH]
			c.state.ALPN = protocol(all[ExtALPN])
		case typeCertificateRequest:
			asked = true
			if len(body) == 0 || body[0] != 0 {
				return false, nil, errors.New("the server asks for a certificate with a context")
			}
		case typeCertificate:
			if err := c.certificates(body, true); err != nil {
				return false, nil, err
			}
		case typeCertificateVerify: // this is a probe: whose key it is doesn't matter
		case typeFinished:
			if !hmac.Equal(body, c.suite.finished13(secret, transcript)) {
				return false, nil, errors.New("the server's Finished is wrong")
			}
			return asked, append(bytes.Clone(transcript), whole...), nil
		default:
			return false, nil, fmt.Errorf("a message of type %d in the server's flight", kind)
		}
		transcript = append(transcript, whole...)
	}
}
