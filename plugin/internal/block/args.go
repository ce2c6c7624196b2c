package block

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
)

// Quote returns an argument as errors show it: quoted, at most 80 bytes of it.
func Quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strconv.Quote(s)
}

// List parses each argument and refuses one that is there twice, however it was written.
func List[T comparable](args []string, parse func(string) (T, error)) ([]T, error) {
	list := make([]T, 0, len(args))
	for _, arg := range args {
		v, err := parse(arg)
		if err != nil {
			return nil, err
		}
		if slices.Contains(list, v) {
			return nil, fmt.Errorf("%v is given twice", v)
		}
		list = append(list, v)
	}
	return list, nil
}

// Prefix parses an address prefix such as 10.1.0.0/16. Bits right of the length must be zero.
func Prefix(s string) (netip.Prefix, error) {
	addr, length, slash := strings.Cut(s, "/")
	ip, err := netip.ParseAddr(addr)
	switch {
	case err != nil || ip.Zone() != "":
		return netip.Prefix{}, fmt.Errorf("%s is not a prefix; one looks like 10.1.0.0/16 or fd00:1::/64", Quote(s))
	case ip.Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 prefix in IPv6 notation; write it as IPv4, such as %s", Quote(s), ip.Unmap())
	case !slash:
		return netip.Prefix{}, fmt.Errorf("%s has no prefix length; the address alone is %s/%d", Quote(s), ip, ip.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("prefix %s has the length %s; 0 to %d is allowed", Quote(s), Quote(length), ip.BitLen())
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("prefix %s has bits set right of its length; did you mean %s?", p, m)
	}
	return p, nil
}

// Site parses the name of a site and its prefixes, and adds them to those that are known.
func Site(known link.Sites, args []string) (link.Sites, error) {
	name, err := link.ParseSite(args[0])
	if err != nil {
		return nil, Plain(err)
	}
	prefixes, err := List(args[1:], Prefix)
	if err != nil {
		return nil, err
	}
	for _, p := range prefixes {
		if i := slices.IndexFunc(known, func(k link.SitePrefix) bool { return k.Prefix == p }); i >= 0 {
			return nil, fmt.Errorf("prefix %s is of site %s already", p, known[i].Site)
		}
		known = append(known, link.SitePrefix{Site: name, Prefix: p})
	}
	return known, nil
}

// Addr parses an IP address without zone. An IPv4 address in IPv6 notation becomes IPv4.
func Addr(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s is not an address; one looks like 10.200.0.5 or fd00:1::5", Quote(s))
	}
	return ip.Unmap(), nil
}

// AddrPort parses an address and port such as 10.20.0.4:1433 or [fd00::4]:1433. The port is not 0.
func AddrPort(s string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil || ap.Addr().Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("%s is not an address and port; one looks like 10.20.0.4:1433 or [fd00::4]:1433", Quote(s))
	case ap.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("%s has port 0; 1 to 65535 is allowed", Quote(s))
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// Port parses a TCP port, 1 to 65535.
func Port(s string) (uint16, error) {
	n, err := Int(s, 1, 65535)
	return uint16(n), err
}

// Int parses a decimal integer within bounds, both included.
func Int(s string, least, most int) (int, error) {
	n, err := strconv.ParseInt(s, 10, bits.UintSize)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return 0, fmt.Errorf("%s is not a whole number", Quote(s))
	case err != nil || n < int64(least) || n > int64(most):
		return 0, fmt.Errorf("%s is out of range; %d to %d is allowed", Quote(s), least, most)
	}
	return int(n), nil
}

// Duration parses a duration with its unit, such as 30s or 5m, within bounds, both included.
func Duration(s string, least, most time.Duration) (time.Duration, error) {
	v, err := time.ParseDuration(s)
	if err != nil {
		if _, err := strconv.Atoi(s); err == nil {
			return 0, fmt.Errorf("duration %s has no unit; did you mean %ss?", Quote(s), s)
		}
		return 0, fmt.Errorf("%s is not a duration; one looks like 30s or 5m", Quote(s))
	}
	if v < least || v > most {
		return 0, fmt.Errorf("duration %s is out of range; %s to %s is allowed", Quote(s), short(least), short(most))
	}
	return v, nil
}

// short writes a duration as one would in a Corefile: 1h40m, not 1h40m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Word returns s if it is one of those allowed.
func Word[T ~string](s string, allowed ...T) (T, error) {
	if slices.Contains(allowed, T(s)) {
		return T(s), nil
	}
	words := make([]string, len(allowed))
	for i, w := range allowed {
		words[i] = string(w)
	}
	return "", fmt.Errorf("unknown word %s; allowed are %s", Quote(s), strings.Join(words, ", "))
}

// ID parses the name of an object declared in a Corefile: an ID of one segment.
func ID(s string) (link.ID, error) {
	id, err := link.ParseID(s)
	if err == nil && strings.Contains(s, "/") {
		err = fmt.Errorf("name %s has a '/'; names in a Corefile have none", Quote(s))
	}
	return id, Plain(err)
}

// Reference parses the name of an object that may have been made elsewhere: an ID of any form.
func Reference(s string) (link.ID, error) {
	id, err := link.ParseID(s)
	return id, Plain(err)
}

// Name parses a host name.
func Name(s string) (link.Name, error) {
	n, err := link.ParseName(s)
	return n, Plain(err)
}

// Pattern parses a host name that may have a wildcard as its left label.
func Pattern(s string) (link.Name, error) {
	n, err := link.ParsePattern(s)
	return n, Plain(err)
}

// Plain is err without the word that link begins its errors with, such as "invalid: ", where the rest
// says as much to the reader of a Corefile. errors.Is still finds it.
func Plain(err error) error {
	for _, word := range []error{link.ErrInvalid, link.ErrConflict, link.ErrExhausted} {
		if err != nil && strings.HasPrefix(err.Error(), word.Error()+": ") {
			return plainError{err, word.Error() + ": "}
		}
	}
	return err
}

type plainError struct {
	error
	prefix string
}

func (e plainError) Error() string { return strings.TrimPrefix(e.error.Error(), e.prefix) }

func (e plainError) Unwrap() error { return e.error }
