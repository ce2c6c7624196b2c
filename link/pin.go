package link

import (
	"fmt"
	"slices"
	"strings"
)

// Pin says how the names of a service are enforced on the bytes of a flow.
type Pin string

// The ways to pin a service.
const (
	PinAddress  Pin = "address"  // the endpoint address alone decides
	PinTLS      Pin = "tls"      // the first bytes are a ClientHello whose SNI equals a name
	PinPostgres Pin = "postgres" // the same, or PostgreSQL's request for TLS comes before; nothing of it reaches a target first
	PinTDS      Pin = "tds"      // the same, or SQL Server's PRELOGIN comes before and reaches the target
	PinMySQL    Pin = "mysql"    // MySQL's: the target speaks first, and the client's answer is held until the name is judged
)

// Pins returns every pin that there is.
func Pins() []Pin { return []Pin{PinTLS, PinPostgres, PinTDS, PinMySQL, PinAddress} }

// startTLS are well-known ports on which protocols begin in clear and go over to TLS in words of their own, which no
// pin reads; and where the same protocol begins with TLS.
var startTLS = map[uint16]struct {
	protocol string
	direct   uint16
}{
	21: {"FTP", 990}, 25: {"SMTP", 465}, 110: {"POP3", 995}, 119: {"NNTP", 563}, 143: {"IMAP", 993},
	389: {"LDAP", 636}, 587: {"SMTP", 465}, 3268: {"LDAP", 3269},
}

// DefaultPin returns the pin of a service that says none, by the port that its endpoints listen on: that of the
// protocol of a well-known port, address for those that go over to TLS in words that no pin reads, and tls for all
// others. A service without names has nothing to hold a client to, and one of UDP can hold it to none.
func DefaultPin(p Protocol, port uint16, names int) Pin {
	if _, ok := startTLS[port]; ok || names == 0 || p == UDP {
		return PinAddress
	}
	switch port {
	case 1433:
		return PinTDS
	case 3306:
		return PinMySQL
	case 5432:
		return PinPostgres
	}
	return PinTLS
}

// checkPin is for services that are written. A stored one stays whatever its pin is, such as one of a newer version:
// no flow gets past a pin that isn't known, or that has no names.
func (s *Service) checkPin() error {
	switch {
	case !slices.Contains(Pins(), s.Pin):
		return fmt.Errorf("%w: pin %q: %s are allowed", ErrInvalid, clip(string(s.Pin)), pinWords())
	case s.Pin != PinAddress && len(s.Names) == 0:
		return fmt.Errorf("%w: pin %s needs names to hold a client to", ErrInvalid, s.Pin)
	}
	return CheckPinPort(s.Pin, s.Port)
}

// CheckPinPort refuses pin tls on a port where clients wait for a greeting, or ask for TLS in words that no pin reads: all
// that they would meet is a timeout. The error wraps [ErrInvalid].
func CheckPinPort(pin Pin, port uint16) error {
	p, ok := startTLS[port]
	if !ok || pin != PinTLS {
		return nil
	}
	return fmt.Errorf("%w: pin tls on port %d: %s begins in clear there and asks for TLS in words of its own, so that no name can be judged; "+
		"use pin address, or the port of %s that begins with TLS: %d", ErrInvalid, port, p.protocol, p.protocol, p.direct)
}

func pinWords() string {
	var all []string
	for _, p := range Pins() {
		all = append(all, string(p))
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}
