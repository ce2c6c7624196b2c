package coremain

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestZones(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Corefile": ".:1053 {\n bind 127.0.0.1\n linknetwork corp 10.0.0.0/8\n privatelink {\n  zone pl.corp.example corp.example\n  zones own.csv\n }\n}\n",
		"own.csv":  "service,resource_type,subresource,private_zone,public_zone\nOwn \x1b[31mdb,Own/db,one,pl.{site}.own.example,{site}.own.example\n",
		"Wrong":    ".:1053 {\n bind 127.0.0.1\n linknetwork corp 10.0.0.0/8\n privatelink {\n  zone pl.corp_example corp.example\n }\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		says []string // in the output, or where the code isn't 0 in the errors
	}{
		{"table", nil, 0, []string{"table 20", ", 238 rows\n", "database.windows.net", "Microsoft.Sql/servers", "US Gov"}},
		{"name", []string{"Contoso.database.windows.net."}, 0, []string{"contoso.database.windows.net\n", "private name  contoso.privatelink.database.windows.net\n", "zone          privatelink.database.windows.net\n", "Microsoft.Sql/servers"}},
		{"other rows", []string{"x.wvd.microsoft.com"}, 0, []string{"x.privatelink.wvd.microsoft.com\n", "gave way", "privatelink-global.wvd.microsoft.com"}},
		{"no row", []string{"db.example.org"}, 0, []string{"is covered by no row"}},
		{"no zone", []string{"x.inference.ml.azure.com"}, 0, []string{"has no private name"}},
		{"private", []string{"c.privatelink.database.windows.net"}, 0, []string{"is private already, in the zone privatelink.database.windows.net"}},
		{"line of a Corefile", []string{"-conf", "Corefile", "a.corp.example"}, 0, []string{"a.pl.corp.example\n", "(Corefile)"}},
		{"file of a Corefile", []string{"-conf", "Corefile", "a.paris.own.example"}, 0, []string{"a.pl.paris.own.example\n", "Own .[31mdb", "Own/db"}},
		{"not without it", []string{"a.corp.example"}, 0, []string{"is covered by no row"}},
		{"wrong Corefile", []string{"-conf", "Wrong"}, 1, []string{"Wrong:5 - privatelink: zone: "}},
		{"no Corefile", []string{"-conf", "none"}, 1, []string{"none"}},
		{"bad name", []string{"a_b.example"}, 2, []string{"labels are made of"}},
		{"bad output", []string{"-o", "yaml"}, 2, []string{"table and json are allowed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := result(t, dir, append([]string{"zones"}, tt.args...)...)
			text := stdout
			if tt.code != 0 {
				text = stderr
			}
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("nothing of %q in\n%s", want, text)
				}
			}
			if code != tt.code || tt.code == 0 && stderr != "" {
				t.Errorf("code %d, stderr %q", code, stderr)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		code, stdout, _ := result(t, dir, "zones", "-conf", "Corefile", "-o", "json")
		var all struct {
			Version string
			Zones   []zoneJSON
		}
		if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != 0 || all.Version == "" || len(all.Zones) != 240 || !all.Zones[0].Added || all.Zones[0].ResourceType != "Own/db" {
			t.Errorf("code %d, %v, version %q, %d zones", code, err, all.Version, len(all.Zones))
		}
		_, stdout, _ = result(t, dir, "zones", "-o", "json", "kv.vault.azure.net", "db.example.org")
		var matches []matchJSON
		if err := json.Unmarshal([]byte(stdout), &matches); err != nil || len(matches) != 2 || matches[0].PrivateName != "kv.privatelink.vaultcore.azure.net" ||
			matches[0].Rows[0].ResourceType != "Microsoft.KeyVault/vaults" || matches[1].PrivateName != "" || matches[1].Rows == nil {
			t.Errorf("%v: %+v", err, matches)
		}
	})
}
