package linkexit

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, corefile string
		want           func(*settings)
		err            string
	}{
		{"open", "linkexit {\nmode open\n}", func(s *settings) { s.mode = modeOpen }, ""},
		{"all", `linkexit corp tenants/lab {
			mode allow-list /etc/names
			rate 50 200
			txt 5
			names 100 10m
			length 120
			refuse TXT TYPE65280 100-102
			rebind Corp.example. .
			log all
		}`, func(s *settings) {
			s.networks, s.mode, s.path = []link.ID{"corp", "tenants/lab"}, modeList, "/etc/names"
			s.rate, s.txt, s.names, s.period, s.length, s.log = [2]int{50, 200}, [2]int{5, 5}, 100, 10*time.Minute, 120, logAll
			s.rebind, s.refuse = []string{"corp.example", ""}, new(types)
			for _, rrtype := range []uint16{dns.TypeTXT, 65280, 100, 101, 102} {
				s.refuse.add(rrtype)
			}
		}, ""},
		{"refuse none", "linkexit {\nmode open\nrefuse none\n}", func(s *settings) { s.mode, s.refuse = modeOpen, new(types) }, ""},
		{"network twice", "linkexit corp CORP {\n}", nil, "corp is given twice"},
		{"C02 unknown property", "linkexit {\ndeny x\n}", nil, `:2 - linkexit: unknown property "deny"; known are mode, rate, txt, names, length, refuse, rebind, log`},
		{"C03 property twice", "linkexit {\nmode open\nmode open\n}", nil, "mode is given already at Testfile:2 and may be given once"},
		{"mode word", "linkexit {\nmode shut\n}", nil, `unknown word "shut"; allowed are closed, allow-list, open`},
		{"list without a file", "linkexit {\nmode allow-list\n}", nil, "allow-list takes the file with the names"},
		{"file without a list", "linkexit {\nmode closed names\n}", nil, "closed takes no file"},
		{"C09 rate 0", "linkexit {\nrate 0\n}", nil, `"0" is out of range; 1 to 1000000 is allowed`},
		{"C09 names", "linkexit {\nnames 1001\n}", nil, `"1001" is out of range; 1 to 1000 is allowed`},
		{"C09 period", "linkexit {\nnames 10 5\n}", nil, `duration "5" has no unit; did you mean 5s?`},
		{"C09 length", "linkexit {\nlength 254\n}", nil, `"254" is out of range; 1 to 253 is allowed`},
		{"refuse word", "linkexit {\nrefuse TXTX\n}", nil, `"TXTX" is no type of a record; one looks like TXT, TYPE65280 or 65280-65534`},
		{"refuse range", "linkexit {\nrefuse 7-6\n}", nil, `"6" is out of range; 7 to 65535 is allowed`},
		{"refuse none and more", "linkexit {\nrefuse none TXT\n}", nil, `"none" is no type`},
		{"rebind", "linkexit {\nrebind *.corp\n}", nil, "labels are made of"},
		{"log", "linkexit {\nlog some\n}", nil, `unknown word "some"; allowed are refused, all, off`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tt.corefile)
			c.Next()
			got := defaults()
			_, err := block.Parse(c, got.directive())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			tt.want(&want)
			if len(got.networks) == 0 {
				got.networks = nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestDefaultTypes(t *testing.T) {
	refused := refusedTypes()
	for _, rrtype := range []uint16{dns.TypeNULL, dns.TypeKEY, dns.TypeANY, 65280, 65400, 65534} {
		if !refused.has(rrtype) {
			t.Errorf("%s is not refused", dns.Type(rrtype))
		}
	}
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeHTTPS, dns.TypeMX, dns.TypeSRV, dns.TypeCAA, dns.TypeDNSKEY, 32768, 65279} {
		if refused.has(rrtype) {
			t.Errorf("%s is refused", dns.Type(rrtype))
		}
	}
}

// listFile writes a list and returns its path.
func listFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSetup: what a server block as a whole must obey.
func TestSetup(t *testing.T) {
	for _, tt := range []struct{ name, corefile, err string }{
		{"without privatelink", "linkexit {\nmode open\n}", ":1 - linkexit: the server block has no privatelink, which says whose query it is"},
		{"without mode", "linkexit {\nrate 5\n}", ":1 - linkexit: mode is missing; it is closed, allow-list FILE or open"},
		{"C12 file that isn't there", "linkexit {\nmode allow-list /nowhere/names\n}", ":2 - linkexit: mode: stat /nowhere/names: no such file or directory"},
		{"directory for a file", "linkexit {\nmode allow-list /\n}", ":2 - linkexit: mode: / is not a file"},
		{"list is only looked at", "linkexit {\nmode allow-list " + listFile(t, "a..b") + "\n}", "has no privatelink"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tt.corefile)
			if err := setup(c); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}
