package privatelink

import (
	"reflect"
	"strings"
	"testing"

	"github.com/coredns/caddy"

	"github.com/postern-link/postern/link"
)

func TestSetup(t *testing.T) {
	tests := []struct {
		name, corefile string
		want           func(*settings)
		err            string // what the error must end in; "" for none
	}{
		{"defaults", "privatelink", func(*settings) {}, ""},
		{"empty block", "privatelink {\n}", func(*settings) {}, ""},
		{"all", `privatelink {
			ttl 60
			network tenants/corp
			miss refuse
			miss nxdomain privatelink.database.windows.net PRIVATELINK.blob.core.windows.net.
			miss pass privatelink.eastus.kusto.windows.net pl.corp.example
			zone pl.corp.example corp.example
			ecs_from 10.0.0.53/32 fd00::/64
			ptr off
		}`, func(s *settings) {
			s.ttl, s.network, s.ptr, s.miss = 60, "tenants/corp", false, missRefuse
			s.ecsFrom = prefixes("10.0.0.53/32", "fd00::/64")
			s.missIn = map[link.Name]policy{
				"privatelink.database.windows.net": missNXDomain, "privatelink.blob.core.windows.net": missNXDomain,
				"privatelink.eastus.kusto.windows.net": missPass, "pl.corp.example": missPass,
			}
		}, ""},
		{"argument", "privatelink corp", nil, "1 argument given, none allowed; usage: privatelink"},
		{"C02 unknown property", "privatelink {\nfallthrough\n}", nil, `:2 - privatelink: unknown property "fallthrough"; known are ttl, network, miss, zone, zones, ecs_from, ptr, fastpath`},
		{"C03 property twice", "privatelink {\nttl 5\nttl 6\n}", nil, ":3 - privatelink: ttl is given already at Testfile:2 and may be given once"},
		{"C03 directive twice", "privatelink\nprivatelink", nil, ":2 - privatelink: given already at Testfile:1 and may be given once in a server block"},
		{"C09 ttl 0", "privatelink {\nttl 0\n}", nil, `:2 - privatelink: ttl: "0" is out of range; 1 to 3600 is allowed`},
		{"C09 ttl with a unit", "privatelink {\nttl 10s\n}", nil, `"10s" is not a whole number`},
		{"C09 ttl missing", "privatelink {\nttl\n}", nil, "0 arguments given, exactly 1 allowed; usage: ttl SECONDS"},
		{"network", "privatelink {\nnetwork -x\n}", nil, "a letter or digit first"},
		{"miss word", "privatelink {\nmiss drop\n}", nil, `unknown word "drop"; allowed are pass, nxdomain, refuse`},
		{"miss twice", "privatelink {\nmiss pass\nmiss refuse\n}", nil, ":3 - privatelink: miss: a policy without zones is given already; name the zones of this one"},
		{"miss twice for a zone", "privatelink {\nmiss pass privatelink.azurecr.io\nmiss refuse privatelink.azurecr.io\n}", nil,
			":3 - privatelink: miss: zone privatelink.azurecr.io has a policy already at Testfile:2"},
		{"miss for a public suffix", "privatelink {\nttl 5\nmiss refuse database.windows.net\n}", nil,
			":3 - privatelink: miss: database.windows.net is no privatelink zone; add it with zone database.windows.net PUBLIC"},
		{"miss for a name in a zone", "privatelink {\nmiss refuse contoso.privatelink.database.windows.net\n}", nil,
			"contoso.privatelink.database.windows.net is no privatelink zone; did you mean privatelink.database.windows.net?"},
		{"zone name", "privatelink {\nzone pl.corp_example corp.example\n}", nil, `zone "pl.corp_example": label "corp_example"; labels are made of small letters, digits and '-', or are a placeholder such as {region}`},
		{"zone with a placeholder that nothing fills", "privatelink {\nzone {a}.x.{b}.lan {a}.example\n}", nil, `zone "{a}.x.{b}.lan" has a placeholder that "{a}.example" doesn't have, so no name could have a private one`},
		{"suffix that is a placeholder", "privatelink {\nzone pl.lan {a}\n}", nil, `zone "{a}": the last label is no placeholder, and 253 bytes are allowed`},
		{"zones without the file", "privatelink {\nzones /nonexistent/zones.csv\n}", nil, ":2 - privatelink: zones: stat /nonexistent/zones.csv: no such file or directory"},
		{"zones of a directory", "privatelink {\nzones /\n}", nil, ":2 - privatelink: zones: / is not a file"},
		{"zones of a file that is none", "privatelink {\nzones testdata/not-zones.csv\n}", nil, "not-zones.csv: line 3: invalid: zone \"un_der.example\": label \"un_der\"; labels are made of small letters, digits and '-', or are a placeholder such as {region}"},
		{"zone without suffix", "privatelink {\nzone pl.corp.example\n}", nil, "1 argument given, exactly 2 allowed; usage: zone PRIVATE|none PUBLIC"},
		{"zone is its suffix", "privatelink {\nzone corp.example CORP.example\n}", nil, "the public suffix corp.example is inside the private zone corp.example, so no name could have a private one"},
		{"zone around its suffix", "privatelink {\nzone example a.example\n}", nil, "the public suffix a.example is inside the private zone example, so no name could have a private one"},
		{"zone twice", "privatelink {\nzone pl.example example\nzone pl.example example\n}", nil, "zone pl.example of example is given already at Testfile:2"},
		{"C05 ecs_from without a slash", "privatelink {\necs_from 10.0.0.53\n}", nil, `"10.0.0.53" has no prefix length; the address alone is 10.0.0.53/32`},
		{"C05 ecs_from too long", "privatelink {\necs_from 10.0.0.53/33\n}", nil, `prefix "10.0.0.53/33" has the length "33"; 0 to 32 is allowed`},
		{"C06 ecs_from", "privatelink {\necs_from 10.0.0.53/8\n}", nil, "did you mean 10.0.0.0/8?"},
		{"ptr", "privatelink {\nptr no\n}", nil, `unknown word "no"; allowed are on, off`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// parse and the checks that setup makes of it, without a server block.
			c := caddy.NewTestController("dns", tt.corefile)
			got, err := parse(c)
			if err == nil {
				zones := link.DefaultZones()
				for _, z := range got.zones {
					if zones, err = zones.With(z.rows...); err != nil {
						t.Fatal(err)
					}
				}
				err = got.checkMiss(zones)
			}
			if tt.err != "" {
				if err == nil || !strings.HasSuffix(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "Testfile:") {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			tt.want(&want)
			if !reflect.DeepEqual(got.settings, want) {
				t.Errorf("got %+v\nwant %+v", got.settings, want)
			}
		})
	}
}
