package link

import (
	"fmt"
	"time"
)

// Protocol is the transport protocol of a service: what its endpoints listen on, and what its targets are spoken to in.
// A port of one has nothing to do with the same number of the other.
type Protocol string

// The transport protocols. The zero one is TCP, which is what services of versions before UDP are.
const (
	TCP Protocol = ""
	UDP Protocol = "udp"
)

// String returns the word for it in logs, metrics and answers: "tcp" for [TCP].
func (p Protocol) String() string {
	if p == TCP {
		return "tcp"
	}
	return string(p)
}

// ParseProtocol returns the protocol of a word, "tcp" or "udp"; none is TCP. The error wraps [ErrInvalid].
func ParseProtocol(s string) (Protocol, error) {
	switch s {
	case "", "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	}
	return TCP, fmt.Errorf("%w: protocol %q: tcp and udp are allowed", ErrInvalid, clip(s))
}

// Bounds of the idle timeout of a service of UDP. Nothing else ends a flow of datagrams whose client is gone,
// so that they are lower than those of TCP: 30 s is what firewalls and NAT keep a flow for too.
const (
	DefaultUDPIdleTimeout = 30 * time.Second
	MinUDPIdleTimeout     = 5 * time.Second
	MaxUDPIdleTimeout     = 600 * time.Second
)

// IdleBounds returns the default of a service's idle timeout, and the bounds of one that is set.
func (p Protocol) IdleBounds() (usual, least, most time.Duration) {
	if p == UDP {
		return DefaultUDPIdleTimeout, MinUDPIdleTimeout, MaxUDPIdleTimeout
	}
	return DefaultIdleTimeout, MinIdleTimeout, MaxIdleTimeout
}

// Idle returns the idle timeout in force.
func (s *Service) Idle() time.Duration {
	if s.IdleTimeout == 0 {
		usual, _, _ := s.Protocol.IdleBounds()
		return usual
	}
	return s.IdleTimeout
}

// checkProtocol is for services that are written. A stored one stays whatever its protocol is: nothing is listened
// on for one that isn't known. The error wraps [ErrInvalid].
func (s *Service) checkProtocol() error {
	if s.Protocol != TCP && s.Protocol != UDP {
		return fmt.Errorf("%w: protocol %q: tcp and udp are allowed", ErrInvalid, clip(string(s.Protocol)))
	}
	if s.Protocol == UDP && s.Probe != (Probe{}) {
		return fmt.Errorf("%w: probe %s with protocol udp: the targets of a service of UDP can't be probed", ErrInvalid, s.Probe)
	}
	if err := CheckWarm(s.Warm, s.Protocol, s.Pin); err != nil {
		return err
	}
	return CheckDatagrams(s.Protocol, s.Pin, s.ProxyProtocol)
}

// CheckDatagrams refuses what a service of UDP can't have: a pin to names, since no datagram tells one that could be
// held to (that of QUIC is encrypted, and may move between datagrams and addresses), and a PROXY header of version 1,
// which knows no datagrams. The error wraps [ErrInvalid].
func CheckDatagrams(p Protocol, pin Pin, header ProxyProtocol) error {
	switch {
	case p != UDP:
		return nil
	case pin != PinAddress:
		return fmt.Errorf("%w: pin %s with protocol udp: a client of UDP can't be held to a name, that of QUIC neither; use pin address", ErrInvalid, clip(string(pin)))
	case header == ProxyV1:
		return fmt.Errorf("%w: PROXY protocol v1 with protocol udp: version 1 is of TCP alone; use v2", ErrInvalid)
	}
	return nil
}
