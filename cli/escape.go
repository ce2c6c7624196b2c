package cli

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// line returns s as one line of a terminal can show it: what doesn't print, turns the direction of writing
// or ends the line is written as an escape.
func line(s string) string {
	if !strings.ContainsFunc(s, hidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case hidden(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}

// lines is line for a text of several lines.
func lines(s string) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range all {
		all[i] = line(all[i])
	}
	return strings.Join(all, "\n")
}

// hidden reports whether a rune is one that a reader doesn't see, or not as what it is. Marks that go on top
// of others are shown only with the letter before them, which a name can be disguised with: they are hidden too.
func hidden(r rune) bool {
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Mn, unicode.Me, unicode.Variation_Selector)
}

// escapeQuoted writes what doesn't print as an escape in text where it can stand in quoted strings only: JSON,
// and YAML that is quoted where it must be. YAML has no surrogates, but escapes of eight digits.
func escapeQuoted(text []byte, isYAML bool) []byte {
	if !bytes.ContainsFunc(text, func(r rune) bool { return r >= 0x7f && hidden(r) }) {
		return text
	}
	var b []byte
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r < 0x7f || r == utf8.RuneError && size == 1 || !hidden(r):
			b = append(b, text[:size]...)
		case r > 0xffff && isYAML:
			b = fmt.Appendf(b, `\U%08x`, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		text = text[size:]
	}
	return b
}
