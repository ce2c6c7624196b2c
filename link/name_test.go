package link

import (
	"errors"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for in, want := range map[string]Name{
		"contoso.database.windows.net":  "contoso.database.windows.net",
		"Contoso.Database.Windows.NET.": "contoso.database.windows.net",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"localhost":                     "localhost",
		"":                              "",
		".":                             "",
		"a..b":                          "",
		"-a.b":                          "",
		"a-.b":                          "",
		"a_b.c":                         "",
		"a b.c":                         "",
		"a\x00b.c":                      "",
		"bücher.example":                "",
		"\u212a.example":                "", // KELVIN SIGN, which folds to k
		"a.b:443":                       "",
		"10.0.0.1":                      "",
		"::1":                           "",
		"*.example.com":                 "",
		strings.Repeat("a", 64) + ".b":  "",
		strings.Repeat("a.", 127) + "a": "",
	} {
		got, err := ParseName(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseName(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestParseAsked(t *testing.T) {
	for in, want := range map[string]Name{
		"_Sip._tcp.Example.com.": "_sip._tcp.example.com",
		"a_b.c":                  "a_b.c",
		"contoso.example":        "contoso.example",
		"":                       "",
		".":                      "",
		"a..b":                   "",
		"-a.b":                   "",
		"*.example.com":          "",
		"10.0.0.1":               "",
		"bücher.example":         "",
		strings.Repeat("_", 64):  "",
	} {
		got, err := ParseAsked(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseAsked(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for in, ok := range map[string]bool{"*.example.com": true, "*.com": false, "*": false, "a.*.com": false, "**.example.com": false, "a*.example.com": false} {
		if _, err := ParsePattern(in); (err == nil) != ok {
			t.Errorf("ParsePattern(%q): %v", in, err)
		}
	}
	for _, tt := range []struct {
		pattern, name Name
		want          bool
	}{
		{"a.example.com", "a.example.com", true},
		{"a.example.com", "b.example.com", false},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "a.b.example.com", false},
		{"*.example.com", "example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.example.com", "aexample.com", false},
		{"allowed.example", "allowed.example.evil.test", false}, // X03
		{"allowed.example", "evilallowed.example", false},       // X03
	} {
		if got := tt.pattern.Matches(tt.name); got != tt.want {
			t.Errorf("%q matches %q: %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func TestParseID(t *testing.T) {
	for in, want := range map[string]ID{
		"corp": "corp", "Corp": "corp", "sub/Group/sql-1_a.b": "sub/group/sql-1_a.b",
		"": "", "a//b": "", "/a": "", "a/": "", "-a": "", "a b": "", "a\nb": "", "ä": "", "*": "", strings.Repeat("a", 256): "",
	} {
		if got, err := ParseID(in); got != want || (err == nil) != (want != "") {
			t.Errorf("ParseID(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("contoso.database.windows.net")
	f.Add("*.Example.com.")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseName(s); err == nil {
			if again, err := ParseName(string(n)); err != nil || again != n {
				t.Errorf("%q is %q, which is %q, %v", s, n, again, err)
			}
		}
		if id, err := ParseID(s); err == nil {
			if again, err := ParseID(string(id)); err != nil || again != id {
				t.Errorf("ID %q is %q, which is %q, %v", s, id, again, err)
			}
		}
	})
}
