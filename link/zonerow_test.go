package link

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTable holds the shipped table to what the rules of precedence take for granted.
func TestTable(t *testing.T) {
	z := DefaultZones()
	if rows := z.Rows(); len(rows) != 238 || !regexp.MustCompile(`^20\d\d-\d\d$`).MatchString(z.Version()) {
		t.Fatalf("%d rows, version %q", len(rows), z.Version())
	}
	clouds, types := map[string]string{}, map[string][]string{}
	for _, r := range z.Rows() {
		if strings.ContainsAny(r.Service+r.Cloud, "[]") || r.Service == "" || r.ResourceType == "" || r.Added {
			t.Errorf("row %+v", r)
		}
		if r.Private == "" {
			continue
		}
		for _, name := range []string{r.Public, r.Private} { // no suffix and no zone is of two clouds
			if cloud, ok := clouds[name]; ok && cloud != r.Cloud {
				t.Errorf("%s is of cloud %q and of %q", name, cloud, r.Cloud)
			}
			clouds[name] = r.Cloud
		}
		if !slices.Contains(types[r.Private], r.ResourceType) {
			types[r.Private] = append(types[r.Private], r.ResourceType)
		}
	}
	// Zones that several resource types share are found with all of them.
	m := z.Match("acct.blob.core.windows.net")
	for _, want := range types["privatelink.blob.core.windows.net"] {
		if want != "Microsoft.ElasticSan/elasticSans" && !slices.ContainsFunc(m.Rows, func(r ZoneRow) bool { return r.ResourceType == want }) {
			t.Errorf("%s isn't named for blob storage: %+v", want, m.Rows)
		}
	}
	if n := len(types["privatelink.blob.core.windows.net"]); n < 5 {
		t.Errorf("%d resource types share the zone of blob storage", n)
	}
}

func TestMatch(t *testing.T) {
	added, err := DefaultZones().With(
		ZoneRow{Private: "a.lan", Public: "corp.example"},
		ZoneRow{Public: "search.windows.net"},
		ZoneRow{Private: "b.zone", Public: "corp.example"},
		ZoneRow{Private: "privatelink-global.wvd.microsoft.com", Public: "rdweb.wvd.microsoft.com"},
		ZoneRow{Private: "{b}.{a}.lan", Public: "{a}.{b}.words.example"},
		ZoneRow{Private: "{b}.privatelink.{a}.swap.example", Public: "{a}.{b}.swap.example"},
		ZoneRow{Private: "own.zone", Public: "whole.example"},
		ZoneRow{Private: "privatelink.plain.example", Public: "plain.example"},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, ask, private, zone string
		rows                     int
		first                    string // the private zone of the first row
		others                   int
	}{
		{"shared by rows", "contoso.database.windows.net", "contoso.privatelink.database.windows.net", "privatelink.database.windows.net", 1, "privatelink.database.windows.net", 0},
		{"longest suffix", "mi.a1.database.windows.net", "mi.privatelink.a1.database.windows.net", "privatelink.a1.database.windows.net", 1, "privatelink.{dnsPrefix}.database.windows.net", 1},
		{"two zones of one suffix", "x.wvd.microsoft.com", "x.privatelink.wvd.microsoft.com", "privatelink.wvd.microsoft.com", 2, "privatelink.wvd.microsoft.com", 1},
		{"a whole name", "rdweb.wvd.microsoft.com", "rdweb.privatelink-global.wvd.microsoft.com", "privatelink-global.wvd.microsoft.com", 1, "privatelink-global.wvd.microsoft.com", 3},
		{"a name below a whole name", "x.rdweb.wvd.microsoft.com", "x.rdweb.privatelink-global.wvd.microsoft.com", "privatelink-global.wvd.microsoft.com", 1, "privatelink-global.wvd.microsoft.com", 3},
		{"a whole name in a zone elsewhere", "whole.example", "whole.own.zone", "own.zone", 1, "own.zone", 0},
		{"a suffix is no whole name", "plain.example", "", "", 1, "privatelink.plain.example", 0},
		{"taken away", "s.search.windows.net", "", "", 1, "", 1},
		{"the last one added", "db.corp.example", "db.b.zone", "b.zone", 1, "b.zone", 1},
		{"placeholders by their words", "h.one.two.words.example", "h.two.one.lan", "two.one.lan", 1, "{b}.{a}.lan", 0},
		{"a marker whose words don't agree", "h.one.two.swap.example", "h.two.privatelink.one.swap.example", "two.privatelink.one.swap.example", 1, "{b}.privatelink.{a}.swap.example", 0},
		{"a zone without a row of the name", "db.example.org", "", "", 0, "", 0},
		{"no zone in the table", "x.inference.ml.azure.com", "", "", 1, "", 1},
		{"private already", "k.privatelink.vaultcore.azure.net", "", "privatelink.vaultcore.azure.net", 2, "privatelink.vaultcore.azure.net", 0},
		{"private, of a template", "c.privatelink.eastus.kusto.windows.net", "", "privatelink.eastus.kusto.windows.net", 1, "privatelink.{regionName}.kusto.windows.net", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := added.Match(Name(tt.ask))
			if string(m.Private) != tt.private || string(m.Zone) != tt.zone || m.Inside != (tt.zone != "" && tt.private == "") {
				t.Errorf("got %+v, inside %v", m.ResourceName, m.Inside)
			}
			if len(m.Rows) != tt.rows || len(m.Others) != tt.others || tt.rows > 0 && m.Rows[0].Private != tt.first {
				t.Errorf("rows %+v\nothers %+v", m.Rows, m.Others)
			}
			if !m.Inside && m.ResourceName != added.Resource(Name(tt.ask)) {
				t.Errorf("Match and Resource differ: %+v", added.Resource(Name(tt.ask)))
			}
		})
	}
	if added.Version() != DefaultZones().Version() || len(added.Rows()) != 238+8 || !added.Rows()[0].Added {
		t.Errorf("version %q, %d rows", added.Version(), len(added.Rows()))
	}
}

func TestParseZones(t *testing.T) {
	const head = "service,resource_type,subresource,private_zone,public_zone\n"
	for _, tt := range []struct{ name, text, err string }{
		{"head alone", head, ""},
		{"row", head + "Db [US Gov],T/x,sub,pl.example,example\n", ""},
		{"quotes and a comment", "# version: 7\n" + head + "# no row\n\"Db, small\",,,,example\n", ""},
		{"empty", "", "the table is empty"},
		{"no head", "a,b,c,pl.example,example\n", "the first row is service,"},
		{"too few columns", head + "a,b,example\n", "record on line 2: wrong number of fields"},
		{"bare quote", head + "a\"b,,,pl.example,example\n", "line 2"},
		{"upper case", head + ",,,PL.example,example\n", `line 2: invalid: zone "PL.example"`},
		{"no suffix", head + ",,,pl.example,\n", `line 2: invalid: zone ""`},
		{"placeholder in a label", head + ",,,pl.a{x}.example,example\n", "line 2"},
		{"empty placeholder", head + ",,,pl.example,{}.example\n", "line 2"},
		{"placeholder twice", head + ",,,pl.example,{x}.{x}.example\n", "line 2"},
		{"suffix of a placeholder", head + ",,,pl.example,{x}\n", "line 2"},
		{"suffix in its zone", head + ",,,example,a.example\n", "no name could have a private one"},
		{"placeholder that nothing fills", head + ",,,pl.{x}.lan,example\n", "no name could have a private one"},
		{"too many", head + strings.Repeat(",,,pl.example,example\n", maxZoneRows+1), "more than 10000 rows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, version, err := ParseZones(tt.text)
			switch {
			case tt.err == "" && err != nil:
				t.Fatal(err)
			case tt.err != "":
				if err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if want := (ZoneRow{Service: "Db", Cloud: "US Gov", ResourceType: "T/x", Subresource: "sub", Private: "pl.example", Public: "example"}); tt.name == "row" && (len(rows) != 1 || rows[0] != want) {
				t.Errorf("rows %+v", rows)
			}
			if tt.name == "quotes and a comment" && (version != "7" || len(rows) != 1 || rows[0].Service != "Db, small") {
				t.Errorf("version %q, rows %+v", version, rows)
			}
		})
	}
}

// asRegexp returns the expression of the names below a suffix: the slow way to match a template.
func asRegexp(template string) *regexp.Regexp {
	var b strings.Builder
	for i, label := range strings.Split(template, ".") {
		if i > 0 {
			b.WriteString(`\.`)
		}
		if strings.HasPrefix(label, "{") {
			b.WriteString(`[^.*]+`)
		} else {
			b.WriteString(regexp.QuoteMeta(label))
		}
	}
	return regexp.MustCompile(`^(?:[^.]+\.)*` + b.String() + `$`)
}

// FuzzZoneRow: a row that is taken matches what its expression matches, its names are found in its zone, and a private name has
// no private name.
func FuzzZoneRow(f *testing.F) {
	f.Add("privatelink.{regionName}.kusto.windows.net", "{regionName}.kusto.windows.net", "c.eastus.kusto.windows.net")
	f.Add("{regionName}.data.privatelink.azurecr.io", "{regionName}.data.azurecr.io", "r.eastus.data.azurecr.io")
	f.Add("{subzone}.privatelink.{regionName}.azmk8s.io", "{regionName}.azmk8s.io", "*.eastus.azmk8s.io")
	f.Add("{b}.{a}.lan", "{a}.{b}.example", "h.one.two.example")
	f.Add("privatelink.{r}.x.io", "x.io", "a.b.x.io")
	f.Add("", "x.io", "a.x.io")
	f.Fuzz(func(t *testing.T, private, public, name string) {
		rule, err := newZoneRule(ZoneRow{Private: private, Public: public})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			return
		}
		z, err := new(Zones).With(ZoneRow{Private: private, Public: public})
		if err != nil {
			t.Fatal(err)
		}
		pattern, err := ParsePattern(name)
		if err != nil {
			return
		}
		labels := strings.Split(string(pattern), ".")
		if got, want := endsIn(labels, rule.public), asRegexp(public).MatchString(string(pattern)); got != want {
			t.Errorf("%q under %q: %v, want %v", pattern, public, got, want)
		}
		res := z.Resource(pattern)
		if res.Private == "" {
			return
		}
		if !asRegexp(public).MatchString(string(pattern)) || z.Zone([]byte(res.Private)) != res.Zone ||
			!strings.HasSuffix(string(res.Private), "."+string(res.Zone)) || z.Resource(res.Private).Private != "" {
			t.Errorf("%q with %q of %q: %+v", pattern, private, public, res)
		}
		// The host stays in front, and each label that a word stands for is one of the name.
		if !strings.HasPrefix(string(res.Private), labels[0]+".") {
			t.Errorf("%q with %q of %q: %s lost its host", pattern, private, public, res.Private)
		}
		if m := z.Match(pattern); m.ResourceName != res || len(m.Rows) != 1 {
			t.Errorf("%q: %+v, but the match says %+v", pattern, res, m)
		}
	})
}

// FuzzParseZones: no text makes it panic, and what it takes makes a table.
func FuzzParseZones(f *testing.F) {
	f.Add(zonesCSV)
	f.Add("service,resource_type,subresource,private_zone,public_zone\na,,,pl.{x}.e,{x}.e\n")
	f.Add("# version: \nx")
	f.Fuzz(func(t *testing.T, text string) {
		rows, _, err := ParseZones(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if _, err := DefaultZones().With(rows...); err != nil {
			t.Error(err)
		}
	})
}
