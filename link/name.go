package link

import (
	"fmt"
	"net/netip"
	"strings"
)

// Name is a host name in canonical form: ASCII lower case, labels of letters, digits and '-',
// no trailing dot, at most 253 bytes, not an IP address. [ParseName] makes one.
type Name string

// MaxAliases is how many aliases (CNAME) are followed one after the other, by DNS and by what explains it.
const MaxAliases = 16

// ParseName returns s as a Name: letters are folded, one trailing dot is dropped. The error wraps
// [ErrInvalid]. Names are compared as bytes afterwards (RFC 4343).
func ParseName(s string) (Name, error) {
	return parseName(strings.TrimSuffix(s, "."), s)
}

// ParsePattern is ParseName that also takes one whole left label "*".
func ParsePattern(s string) (Name, error) {
	rest, wild := strings.CutPrefix(s, "*.")
	n, err := parseName(strings.TrimSuffix(rest, "."), s)
	if err != nil || !wild {
		return n, err
	}
	if !strings.Contains(string(n), ".") {
		return "", fmt.Errorf("%w: name %q: a wildcard needs at least two labels below it", ErrInvalid, clip(s))
	}
	return "*." + n, nil
}

// ParseAsked is ParseName of a name that may be another thing's than a host's: its labels may have '_', too (RFC 8552).
func ParseAsked(s string) (Name, error) {
	name := strings.TrimSuffix(s, ".")
	if _, err := parseName(strings.ReplaceAll(name, "_", "x"), s); err != nil {
		return "", err
	}
	return Name(strings.ToLower(name)), nil
}

func parseName(s, given string) (Name, error) {
	if s == "" || len(s) > 253 {
		return "", fmt.Errorf("%w: name %q has %d bytes, 1 to 253 are allowed", ErrInvalid, clip(given), len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("%w: name %q: a label has 1 to 63 bytes", ErrInvalid, clip(given))
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("%w: name %q: a label neither begins nor ends with '-'", ErrInvalid, clip(given))
		}
		for i := range len(label) {
			c := label[i]
			if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' {
				continue
			}
			return "", fmt.Errorf("%w: name %q: labels are made of letters, digits and '-'", ErrInvalid, clip(given))
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", fmt.Errorf("%w: %q is an address, not a name", ErrInvalid, clip(given))
	}
	return Name(strings.ToLower(s)), nil
}

// Matches reports whether n, which may be a pattern, stands for name.
func (n Name) Matches(name Name) bool {
	if suffix, wild := strings.CutPrefix(string(n), "*"); wild {
		label, ok := strings.CutSuffix(string(name), suffix)
		return ok && label != "" && !strings.Contains(label, ".")
	}
	return n == name
}

// Parent returns the name without its first label, or "" for a name of one label.
func (n Name) Parent() Name {
	_, rest, _ := strings.Cut(string(n), ".")
	return Name(rest)
}
