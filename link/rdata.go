package link

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// This file reads the data of records, one string a record as in a zone file (RFC 1035 section 5.1),
// and writes it in one canonical form: names absolute and in lower case, addresses and numbers at their
// shortest, each character string of a TXT in quotes.

// MaxText bounds the text of one TXT record, in bytes, all its character strings together.
const MaxText = 1024

// RecordTypes are the types that a [RecordSet] may have.
func RecordTypes() []string {
	return []string{"A", "AAAA", "CNAME", "MX", "PTR", "SOA", "SRV", "TXT"}
}

// ParseRecord returns the data of a record of one of [RecordTypes] in canonical form. The error wraps
// [ErrInvalid].
func ParseRecord(rtype, data string) (string, error) {
	canonical, err := parseRecord(rtype, data)
	if err != nil {
		return "", fmt.Errorf("%w: %s record %q: %w", ErrInvalid, rtype, clip(data), err)
	}
	return canonical, nil
}

func parseRecord(rtype, data string) (string, error) {
	switch rtype {
	case "A", "AAAA":
		a, err := netip.ParseAddr(data)
		if err != nil || a.Is4() != (rtype == "A") || a.Is4In6() || a.Zone() != "" {
			return "", fmt.Errorf("not an address of the type")
		}
		return a.String(), nil
	case "CNAME", "PTR":
		return parseFields(data, "target name")
	case "MX":
		return parseFields(data, "preference", "exchange host")
	case "SRV":
		return parseFields(data, "priority", "weight", "port", "target host")
	case "SOA":
		return parseFields(data, "host name", "email name", "serial long", "refresh long", "retry long", "expire long", "minimum long")
	case "TXT":
		text, err := ParseText(data)
		if err != nil {
			return "", err
		}
		return FormatText(text), nil
	}
	return "", fmt.Errorf("the type is none of %s", strings.Join(RecordTypes(), " "))
}

// parseFields reads fields that are divided by blanks. Each is given by what it is called and, after a
// blank, its kind: a name, a host (a name, or "." for none: RFC 7505, RFC 2782), a number of 31 bits
// (long), and without a word one of 16 bits.
func parseFields(data string, fields ...string) (string, error) {
	words := strings.Fields(data)
	if len(words) != len(fields) {
		return "", fmt.Errorf("%d fields, %d are needed", len(words), len(fields))
	}
	for i, f := range fields {
		what, kind, _ := strings.Cut(f, " ")
		var err error
		switch kind {
		case "":
			words[i], err = parseNumber(words[i], 16)
		case "long":
			words[i], err = parseNumber(words[i], 31)
		case "host", "name":
			if words[i] == "." && kind == "host" {
				continue
			}
			words[i], err = parseTarget(words[i])
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
	}
	return strings.Join(words, " "), nil
}

func parseNumber(s string, bits int) (string, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil || s[0] == '+' {
		return "", fmt.Errorf("%q is not a number from 0 to %d", clip(s), uint64(1)<<bits-1)
	}
	return strconv.FormatUint(n, 10), nil
}

// parseTarget reads a name that a record points to. It is absolute, with or without the final dot.
func parseTarget(s string) (string, error) {
	name := strings.TrimSuffix(s, ".")
	if len(name) == 0 || len(name) > 253 {
		return "", fmt.Errorf("a name of %d bytes, 1 to 253 are allowed", len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	return strings.ToLower(name) + ".", nil
}

// checkLabel refuses a label that a record's name or target can't have: those of host names and, for
// what isn't a host, underscores (RFC 8552).
func checkLabel(label string) error {
	if label == "" || len(label) > 63 {
		return fmt.Errorf("a label has 1 to 63 bytes, %q has %d", clip(label), len(label))
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return fmt.Errorf("label %q begins or ends with '-'", label)
	}
	for i := range len(label) {
		c := label[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			continue
		}
		return fmt.Errorf("label %q has other characters than letters, digits, '-' and '_'", clip(label))
	}
	return nil
}

// ParseText returns the character strings of a TXT record: words, or strings in quotes. A backslash
// stands before a character that means itself, or three decimal digits of its value.
func ParseText(data string) ([]string, error) {
	var all []string
	size := 0
	for rest := strings.TrimLeft(data, " \t"); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		s, tail, err := textString(rest)
		switch {
		case err != nil:
			return nil, err
		case len(s) > 255:
			return nil, fmt.Errorf("a string of %d bytes, 255 are allowed", len(s))
		case tail != "" && tail[0] != ' ' && tail[0] != '\t':
			return nil, fmt.Errorf("no blank after a string")
		}
		all, rest, size = append(all, s), tail, size+len(s)
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("no text")
	case size > MaxText || len(all) > MaxText/4:
		return nil, fmt.Errorf("%d strings of %d bytes, %d of %d are allowed", len(all), size, MaxText/4, MaxText)
	}
	return all, nil
}

// textString reads the first character string of data.
func textString(data string) (s, rest string, err error) {
	quoted := data[0] == '"'
	i := 0
	if quoted {
		i = 1
	}
	var b strings.Builder
	for ; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '"':
			return b.String(), data[i+1:], nil
		case !quoted && (c == ' ' || c == '\t'):
			return b.String(), data[i:], nil
		case !quoted && c == '"':
			return "", "", fmt.Errorf("a quote within a word")
		case c < ' ' || c > '~':
			return "", "", fmt.Errorf("byte %d has to be written \\%03d", c, c)
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(data) && (data[i+1] < '0' || data[i+1] > '9') && data[i+1] >= ' ' && data[i+1] <= '~':
			i++
			b.WriteByte(data[i])
		case i+3 < len(data):
			n, err := strconv.ParseUint(data[i+1:i+4], 10, 8)
			if err != nil {
				return "", "", fmt.Errorf("\\%s is no byte", clip(data[i+1:i+4]))
			}
			b.WriteByte(byte(n))
			i += 3
		default:
			return "", "", fmt.Errorf("a backslash before nothing")
		}
	}
	if quoted {
		return "", "", fmt.Errorf("no closing quote")
	}
	return b.String(), "", nil
}

// FormatText returns character strings, any bytes, as the data of a TXT record in canonical form.
func FormatText(all []string) string {
	var b strings.Builder
	for i, s := range all {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte('"')
		for j := range len(s) {
			switch c := s[j]; {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, "\\%03d", c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
	}
	return b.String()
}
