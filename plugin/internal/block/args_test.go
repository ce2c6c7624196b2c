package block

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// outcome is what a parser made of its argument: the value, or "error: ..." .
func outcome[T any](v T, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprint(v)
}

func TestArguments(t *testing.T) {
	prefix := func(s string) string { return outcome(Prefix(s)) }
	addr := func(s string) string { return outcome(Addr(s)) }
	addrPort := func(s string) string { return outcome(AddrPort(s)) }
	span := func(s string) string { return outcome(Duration(s, time.Second, time.Hour)) }
	number := func(s string) string { return outcome(Int(s, 1, 65535)) }
	word := func(s string) string { return outcome(Word(s, "tls", "address")) }
	id := func(s string) string { return outcome(ID(s)) }
	name := func(s string) string { return outcome(Name(s)) }
	pattern := func(s string) string { return outcome(Pattern(s)) }
	for _, tc := range []struct {
		name  string
		parse func(string) string
		input string
		want  string
	}{
		{"prefix", prefix, "10.1.0.0/16", "10.1.0.0/16"},
		{"prefix IPv6", prefix, "FD00:1::/64", "fd00:1::/64"},
		{"prefix of everything", prefix, "0.0.0.0/0", "0.0.0.0/0"},
		{"C05 no slash", prefix, "10.1.0.0", `error: "10.1.0.0" has no prefix length; the address alone is 10.1.0.0/32`},
		{"C05 /33", prefix, "10.1.0.0/33", `error: prefix "10.1.0.0/33" has the length "33"; 0 to 32 is allowed`},
		{"C05 /129", prefix, "fd00::/129", `error: prefix "fd00::/129" has the length "129"; 0 to 128 is allowed`},
		{"C05 letters", prefix, "corp", `error: "corp" is not a prefix; one looks like 10.1.0.0/16 or fd00:1::/64`},
		{"C05 letters for the length", prefix, "10.1.0.0/x", `error: prefix "10.1.0.0/x" has the length "x"; 0 to 32 is allowed`},
		{"C05 leading zero", prefix, "10.01.0.0/16", `error: "10.01.0.0/16" is not a prefix; one looks like 10.1.0.0/16 or fd00:1::/64`},
		{"C06 host bits", prefix, "10.0.0.7/8", `error: prefix 10.0.0.7/8 has bits set right of its length; did you mean 10.0.0.0/8?`},
		{"prefix mapped", prefix, "::ffff:10.0.0.0/104", `error: "::ffff:10.0.0.0/104" is an IPv4 prefix in IPv6 notation; write it as IPv4, such as 10.0.0.0`},
		{"prefix with zone", prefix, "fe80::%eth0/64", `error: "fe80::%eth0/64" is not a prefix; one looks like 10.1.0.0/16 or fd00:1::/64`},
		{"address", addr, "10.200.0.5", "10.200.0.5"},
		{"address mapped", addr, "::ffff:10.200.0.5", "10.200.0.5"},
		{"address with zone", addr, "fe80::1%eth0", `error: "fe80::1%eth0" is not an address; one looks like 10.200.0.5 or fd00:1::5`},
		{"address of three bytes", addr, "10.200.5", `error: "10.200.5" is not an address; one looks like 10.200.0.5 or fd00:1::5`},
		{"address and port", addrPort, "10.20.0.4:1433", "10.20.0.4:1433"},
		{"address and port mapped", addrPort, "[::ffff:10.20.0.4]:1433", "10.20.0.4:1433"},
		{"port missing", addrPort, "10.20.0.4", `error: "10.20.0.4" is not an address and port; one looks like 10.20.0.4:1433 or [fd00::4]:1433`},
		{"port 0", addrPort, "10.20.0.4:0", `error: "10.20.0.4:0" has port 0; 1 to 65535 is allowed`},
		{"name for an address", addrPort, "db.example:1433", `error: "db.example:1433" is not an address and port; one looks like 10.20.0.4:1433 or [fd00::4]:1433`},
		{"duration", span, "90s", "1m30s"},
		{"C09 30x", span, "30x", `error: "30x" is not a duration; one looks like 30s or 5m`},
		{"C09 negative", span, "-30s", `error: duration "-30s" is out of range; 1s to 1h is allowed`},
		{"C09 no unit", span, "30", `error: duration "30" has no unit; did you mean 30s?`},
		{"duration too long", span, "1000000h", `error: duration "1000000h" is out of range; 1s to 1h is allowed`},
		{"duration overflow", span, "99999999999h", `error: "99999999999h" is not a duration; one looks like 30s or 5m`},
		{"number", number, "443", "443"},
		{"C09 letters in a number", number, "44e", `error: "44e" is not a whole number`},
		{"number out of range", number, "70000", `error: "70000" is out of range; 1 to 65535 is allowed`},
		{"number of twenty digits", number, "99999999999999999999", `error: "99999999999999999999" is out of range; 1 to 65535 is allowed`},
		{"word", word, "tls", "tls"},
		{"unknown word", word, "TLS", `error: unknown word "TLS"; allowed are tls, address`},
		{"ID folded", id, "Corp-1", "corp-1"},
		{"ID with slash", id, "tenant/corp", `error: name "tenant/corp" has a '/'; names in a Corefile have none`},
		{"ID with space", id, "a b", `error: name "a b": letters, digits, '.', '_' and '-' are allowed, a letter or digit first`},
		{"name", name, "Contoso.Database.Windows.NET.", "contoso.database.windows.net"},
		{"name with underscore", name, "a_b.example", `error: name "a_b.example": labels are made of letters, digits and '-'`},
		{"address for a name", name, "10.0.0.1", `error: "10.0.0.1" is an address, not a name`},
		{"pattern", pattern, "*.blob.example", "*.blob.example"},
		{"pattern in the middle", pattern, "a.*.example", `error: name "a.*.example": labels are made of letters, digits and '-'`},
		{"bare pattern", pattern, "*.net", `error: name "*.net": a wildcard needs at least two labels below it`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.parse(tc.input); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestList(t *testing.T) {
	if got, err := List([]string{"10.0.0.0/8", "fd00::/8"}, Prefix); err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := List([]string{"a.example", "A.example."}, Name)
	if err == nil || err.Error() != "a.example is given twice" {
		t.Errorf("twice in two spellings: %v", err)
	}
}

// What link calls invalid is still found by errors.Is, though the word isn't shown.
func TestPlainErrors(t *testing.T) {
	_, err := ID("")
	if !errors.Is(err, link.ErrInvalid) || strings.HasPrefix(err.Error(), "invalid") {
		t.Errorf("error %v", err)
	}
}

// FuzzArguments: no parser panics; what it takes has the promised form and, written out, is taken
// again as the same; every error is one short line.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		"10.0.0.0/8", "10.0.0.7/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "fe80::1%eth0", "fe80::1%eth0/64", "10.20.0.4:1433", "[::1]:1",
		"[fe80::1%eth0]:1", "30s", "30x", "-1h", "1e9", "99999999999999999999", "*.example.com", "a.b.", "..", "corp", "*", "\x00", "::", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		short := func(err error) {
			if m := err.Error(); len(m) > 700 || strings.ContainsAny(m, "\n\r\x00") {
				t.Errorf("error of %d bytes: %q", len(m), m)
			}
		}
		if p, err := Prefix(s); err != nil {
			short(err)
		} else if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Errorf("prefix %v", p)
		} else if again, err := Prefix(p.String()); err != nil || again != p {
			t.Errorf("prefix %v again: %v, %v", p, again, err)
		}
		if a, err := Addr(s); err != nil {
			short(err)
		} else if a.Is4In6() || a.Zone() != "" || !a.IsValid() {
			t.Errorf("address %v", a)
		}
		if ap, err := AddrPort(s); err != nil {
			short(err)
		} else if ap.Addr().Is4In6() || ap.Addr().Zone() != "" || ap.Port() == 0 {
			t.Errorf("address and port %v", ap)
		} else if again, err := netip.ParseAddrPort(ap.String()); err != nil || again != ap {
			t.Errorf("address and port %v again: %v, %v", ap, again, err)
		}
		if v, err := Duration(s, 0, time.Hour); err != nil {
			short(err)
		} else if v < 0 || v > time.Hour {
			t.Errorf("duration %v", v)
		}
		if n, err := Int(s, 0, math.MaxInt32); err != nil {
			short(err)
		} else if n < 0 || n > math.MaxInt32 {
			t.Errorf("number %d", n)
		}
		if id, err := ID(s); err != nil {
			short(err)
		} else if again, err := link.ParseID(string(id)); err != nil || again != id || strings.Contains(string(id), "/") {
			t.Errorf("ID %q", id)
		}
		if n, err := Pattern(s); err != nil {
			short(err)
		} else if again, err := link.ParsePattern(string(n)); err != nil || again != n {
			t.Errorf("name %q", n)
		}
	})
}
