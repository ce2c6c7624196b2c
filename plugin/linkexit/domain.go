package linkexit

import (
	"strings"

	"github.com/postern-link/postern/plugin/privatelink"
	"golang.org/x/net/publicsuffix"
)

// escaped stands for any character that is escaped in a name. No entry of a list and no zone has it, so that
// a dot within a label is never taken for one between labels.
const escaped = '\\'

// fold returns a name of a question in ASCII lower case, without the dot at its end and with one
// [escaped] for each escaped character. A name that is so already isn't copied.
func fold(fqdn string) string {
	for i := 0; i < len(fqdn); i++ {
		if c := fqdn[i]; c == escaped || c >= 'A' && c <= 'Z' {
			return string(privatelink.Canonical(nil, fqdn))
		}
	}
	return strings.TrimSuffix(fqdn, ".")
}

// registered returns the domain that somebody has registered which a folded name is in, "." for the
// names of registries themselves.
//
// Suffixes that the list has for companies, such as those of clouds, are not registries here: whoever owns one has as many
// domains below it as it likes, and could write data into them.
func registered(folded string) string {
	suffix, icann := publicsuffix.PublicSuffix(folded)
	for !icann {
		_, above, ok := strings.Cut(suffix, ".")
		if !ok {
			break // a top-level domain that isn't in the list
		}
		suffix, icann = publicsuffix.PublicSuffix(above)
	}
	end := len(folded) - len(suffix) - 1
	if end <= 0 || folded[end] != '.' {
		return "."
	}
	return folded[strings.LastIndexByte(folded[:end], '.')+1:]
}

// below reports whether a folded name is a zone or below it.
func below(folded, zone string) bool {
	if len(folded) == len(zone) {
		return folded == zone
	}
	return len(folded) > len(zone) && folded[len(folded)-len(zone)-1] == '.' && folded[len(folded)-len(zone):] == zone
}

// exempt reports whether a folded name is in one of the zones; that of the root is "".
func exempt(zones []string, folded string) bool {
	for _, zone := range zones {
		if zone == "" || below(folded, zone) {
			return true
		}
	}
	return false
}
