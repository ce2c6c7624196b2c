package link

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	for _, tt := range []struct {
		rtype, data, want string // want "": refused
	}{
		{"A", "10.0.0.1", "10.0.0.1"},
		{"A", "10.0.0.01", ""},
		{"A", "::1", ""},
		{"A", "::ffff:10.0.0.1", ""},
		{"A", "", ""},
		{"A", "10.0.0.1 10.0.0.2", ""},
		{"AAAA", "FD00:0::1", "fd00::1"},
		{"AAAA", "10.0.0.1", ""},
		{"AAAA", "::ffff:10.0.0.1", ""},
		{"AAAA", "fe80::1%eth0", ""},
		{"CNAME", "Target.Example.com", "target.example.com."},
		{"CNAME", "_x._tcp.example.com.", "_x._tcp.example.com."},
		{"CNAME", ".", ""},
		{"CNAME", "a..b", ""},
		{"CNAME", "a b", ""},
		{"CNAME", `a\.b`, ""},
		{"CNAME", strings.Repeat("a", 64) + ".b", ""},
		{"CNAME", strings.Repeat("a.", 127) + "b", ""},
		{"CNAME", "*.example.com", ""},
		{"PTR", "host.example.com", "host.example.com."},
		{"MX", "10 mail.example.com", "10 mail.example.com."},
		{"MX", "0 .", "0 ."},
		{"MX", "65536 mail.example.com", ""},
		{"MX", "+1 mail.example.com", ""},
		{"MX", "mail.example.com", ""},
		{"SRV", "1  2 443\thost.example.com", "1 2 443 host.example.com."},
		{"SRV", "1 2 -3 host.example.com", ""},
		{"SOA", "ns.example.com. admin.example.com. 1 3600 300 2419200 10", "ns.example.com. admin.example.com. 1 3600 300 2419200 10"},
		{"SOA", "ns.example.com. admin.example.com. 1 3600 300 2419200", ""},
		{"SOA", "ns.example.com. admin.example.com. 1 3600 300 2419200 2147483648", ""},
		{"TXT", `"a b" c`, `"a b" "c"`},
		{"TXT", `"a\"b\\c"`, `"a\"b\\c"`},
		{"TXT", `"\065\195\164"`, `"A\195\164"`},
		{"TXT", `""`, `""`},
		{"TXT", `"a"b`, ""},
		{"TXT", `a"b`, ""},
		{"TXT", `"a`, ""},
		{"TXT", `"a\`, ""},
		{"TXT", `"\256"`, ""},
		{"TXT", `"\+10"`, `"+10"`},
		{"TXT", `"\1x0"`, ""},
		{"TXT", "", ""},
		{"TXT", "\"ä\"", ""},
		{"TXT", "\"a\nb\"", ""},
		{"TXT", `"` + strings.Repeat("a", 255) + `"`, `"` + strings.Repeat("a", 255) + `"`},
		{"TXT", `"` + strings.Repeat("a", 256) + `"`, ""},
		{"TXT", strings.Repeat(strings.Repeat("a", 250)+" ", 5), ""},
		{"NS", "ns.example.com.", ""},
	} {
		got, err := ParseRecord(tt.rtype, tt.data)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s %q: %q, %v, want %q", tt.rtype, tt.data, got, err, tt.want)
		}
	}
}

// FuzzParseRecord: what is read is canonical, and canonical text stays as it is.
func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{"10.0.0.1", "fd00::1", "host.example.com.", "10 mail.example.com.", "1 2 443 host.", "a. b. 1 2 3 4 5", `"a\"b" c\032\255`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		for _, rtype := range RecordTypes() {
			once, err := ParseRecord(rtype, data)
			if err != nil {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%s %q: %v", rtype, data, err)
				}
				continue
			}
			if twice, err := ParseRecord(rtype, once); err != nil || twice != once {
				t.Errorf("%s %q is %q, and that %q, %v", rtype, data, once, twice, err)
			}
			for i := range len(once) {
				if once[i] < ' ' || once[i] > '~' {
					t.Errorf("%s %q is %q", rtype, data, once)
				}
			}
		}
	})
}
