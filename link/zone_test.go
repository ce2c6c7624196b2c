package link

import (
	"slices"
	"strings"
	"testing"
)

func TestResource(t *testing.T) {
	tests := []struct{ name, public, private, zone string }{
		// Zones that are "privatelink." and the public suffix.
		{"sql", "contoso.database.windows.net", "contoso.privatelink.database.windows.net", "privatelink.database.windows.net"},
		{"blob", "acct.blob.core.windows.net", "acct.privatelink.blob.core.windows.net", "privatelink.blob.core.windows.net"},
		{"deep", "a.b.redis.cache.windows.net", "a.b.privatelink.redis.cache.windows.net", "privatelink.redis.cache.windows.net"},
		{"longest suffix wins over azure.com", "acct.purview.azure.com", "acct.privatelink.purview.azure.com", "privatelink.purview.azure.com"},
		{"resource manager", "management.azure.com", "management.privatelink.azure.com", "privatelink.azure.com"},
		{"wildcard", "*.database.windows.net", "*.privatelink.database.windows.net", "privatelink.database.windows.net"},

		// Templates.
		{"data explorer", "c.westeurope.kusto.windows.net", "c.privatelink.westeurope.kusto.windows.net", "privatelink.westeurope.kusto.windows.net"},
		{"sql managed instance", "mi.a1b2c3.database.windows.net", "mi.privatelink.a1b2c3.database.windows.net", "privatelink.a1b2c3.database.windows.net"},
		{"static web app", "app.azurestaticapps.net", "app.privatelink.azurestaticapps.net", "privatelink.azurestaticapps.net"},
		{"static web app with partition", "app.2.azurestaticapps.net", "app.privatelink.2.azurestaticapps.net", "privatelink.2.azurestaticapps.net"},
		{"prometheus", "w.eastus.prometheus.monitor.azure.com", "w.privatelink.eastus.prometheus.monitor.azure.com", "privatelink.eastus.prometheus.monitor.azure.com"},

		// Each row that isn't "privatelink." and the public suffix.
		{"batch account", "acct.westeurope.batch.azure.com", "acct.westeurope.privatelink.batch.azure.com", "privatelink.batch.azure.com"},
		{"batch node management", "id.westeurope.service.batch.azure.com", "id.westeurope.service.privatelink.batch.azure.com", "privatelink.batch.azure.com"},
		{"virtual desktop, two zones of one suffix", "rdweb.wvd.microsoft.com", "rdweb.privatelink.wvd.microsoft.com", "privatelink.wvd.microsoft.com"},
		{"kubernetes, subzone can't be filled", "dns-1.hcp.eastus.azmk8s.io", "dns-1.hcp.privatelink.eastus.azmk8s.io", "privatelink.eastus.azmk8s.io"},
		{"container apps", "app.env.eastus.azurecontainerapps.io", "app.env.privatelink.eastus.azurecontainerapps.io", "privatelink.eastus.azurecontainerapps.io"},
		{"container registry", "reg.azurecr.io", "reg.privatelink.azurecr.io", "privatelink.azurecr.io"},
		{"container registry data", "reg.eastus.data.azurecr.io", "reg.eastus.data.privatelink.azurecr.io", "eastus.data.privatelink.azurecr.io"},
		{"redis enterprise", "c.eastus.redisenterprise.cache.azure.net", "c.eastus.privatelink.redisenterprise.cache.azure.net", "privatelink.redisenterprise.cache.azure.net"},
		{"managed redis", "c.eastus.redis.azure.net", "c.eastus.privatelink.redis.azure.net", "privatelink.redis.azure.net"},
		{"event grid topic", "t.eastus-1.eventgrid.azure.net", "t.eastus-1.privatelink.eventgrid.azure.net", "privatelink.eventgrid.azure.net"},
		{"event grid topic space", "n.eastus-1.ts.eventgrid.azure.net", "n.eastus-1.privatelink.ts.eventgrid.azure.net", "privatelink.ts.eventgrid.azure.net"},
		{"health workspace", "w.workspace.azurehealthcareapis.com", "w.workspace.privatelink.azurehealthcareapis.com", "privatelink.azurehealthcareapis.com"},
		{"health fhir", "w.fhir.azurehealthcareapis.com", "w.fhir.privatelink.azurehealthcareapis.com", "privatelink.azurehealthcareapis.com"},
		{"health dicom", "w.dicom.azurehealthcareapis.com", "w.privatelink.dicom.azurehealthcareapis.com", "privatelink.dicom.azurehealthcareapis.com"},
		{"automation", "id.webhook.eus2.azure-automation.net", "id.webhook.eus2.privatelink.azure-automation.net", "privatelink.azure-automation.net"},
		{"agent service beats the automation template", "id.agentsvc.azure-automation.net", "id.privatelink.agentsvc.azure-automation.net", "privatelink.agentsvc.azure-automation.net"},
		{"site recovery", "v.eus2.siterecovery.windowsazure.com", "v.eus2.privatelink.siterecovery.windowsazure.com", "privatelink.siterecovery.windowsazure.com"},
		{"key vault", "kv.vault.azure.net", "kv.privatelink.vaultcore.azure.net", "privatelink.vaultcore.azure.net"},
		{"key vault core", "kv.vaultcore.azure.net", "kv.privatelink.vaultcore.azure.net", "privatelink.vaultcore.azure.net"},
		{"elastic san", "v.z1.blob.storage.azure.net", "v.z1.privatelink.blob.core.windows.net", "privatelink.blob.core.windows.net"},
		{"web app", "app.azurewebsites.net", "app.privatelink.azurewebsites.net", "privatelink.azurewebsites.net"},
		{"web app scm", "app.scm.azurewebsites.net", "app.scm.privatelink.azurewebsites.net", "scm.privatelink.azurewebsites.net"},
		{"gov managed instance", "mi.a1b2.database.usgovcloudapi.net", "mi.privatelink.a1b2.database.usgovcloudapi.net", "privatelink.a1b2.database.usgovcloudapi.net"},
		{"gov batch", "acct.r.batch.usgovcloudapi.net", "acct.r.privatelink.batch.usgovcloudapi.net", "privatelink.batch.usgovcloudapi.net"},
		{"gov batch node", "id.r.service.batch.usgovcloudapi.net", "id.r.service.privatelink.batch.usgovcloudapi.net", "privatelink.batch.usgovcloudapi.net"},
		{"gov key vault", "kv.vault.usgovcloudapi.net", "kv.privatelink.vaultcore.usgovcloudapi.net", "privatelink.vaultcore.usgovcloudapi.net"},
		{"gov site recovery", "v.r.siterecovery.windowsazure.us", "v.r.privatelink.siterecovery.windowsazure.us", "privatelink.siterecovery.windowsazure.us"},
		{"gov service bus, two zones of one suffix", "n.servicebus.usgovcloudapi.net", "n.privatelink.servicebus.usgovcloudapi.net", "privatelink.servicebus.usgovcloudapi.net"},
		{"gov web app scm", "app.scm.azurewebsites.us", "app.scm.privatelink.azurewebsites.us", "scm.privatelink.azurewebsites.us"},
		{"gov virtual desktop", "r.wvd.azure.us", "r.privatelink.wvd.azure.us", "privatelink.wvd.azure.us"},
		{"china batch", "acct.r.batch.chinacloudapi.cn", "acct.r.privatelink.batch.chinacloudapi.cn", "privatelink.batch.chinacloudapi.cn"},
		{"china batch node", "id.r.service.batch.chinacloudapi.cn", "id.r.service.privatelink.batch.chinacloudapi.cn", "privatelink.batch.chinacloudapi.cn"},
		{"china signalr", "s.service.signalr.azure.cn", "s.service.privatelink.signalr.azure.cn", "privatelink.signalr.azure.cn"},
		{"china virtual desktop", "r.wvd.azure.cn", "r.privatelink.wvd.azure.cn", "privatelink.wvd.azure.cn"},

		// Names without a private name.
		{"no suffix", "db.example.com", "", ""},
		{"public suffix itself", "database.windows.net", "", ""},
		{"suffix itself, not under a shorter one", "purview.azure.com", "", ""},
		{"nothing left of the template", "eastus.kusto.windows.net", "", ""},
		{"wildcard in the place of a region", "*.kusto.windows.net", "", ""},
		{"already private", "contoso.privatelink.database.windows.net", "", ""},
		{"apex of a private zone", "privatelink.database.windows.net", "", ""},
		{"suffix without a zone, below azure.com", "x.inference.ml.azure.com", "", ""},
		{"label that only ends like the suffix", "contoso.xdatabase.windows.net", "", ""},
		{"private name over 253 bytes", strings.Repeat(strings.Repeat("a", 45)+".", 5) + "blob.core.windows.net", "", ""},
	}
	z := DefaultZones()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParsePattern(tt.public); err != nil {
				t.Fatal(err)
			}
			got := z.Resource(Name(tt.public))
			want := ResourceName{Public: Name(tt.public), Private: Name(tt.private), Zone: Name(tt.zone)}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Every row with a private zone yields a private name within the zone that Zone finds.
func TestEveryRow(t *testing.T) {
	z := DefaultZones()
	if len(z.rules) < 100 {
		t.Fatalf("%d rules", len(z.rules))
	}
	for _, r := range z.rules {
		suffix := slices.Clone(r.public)
		for i, l := range suffix {
			if l == "" {
				suffix[i] = "fill" + string(rune('a'+i))
			}
		}
		public := Name("left.host." + strings.Join(suffix, "."))
		got := z.Resource(public)
		if r.private == nil {
			if got != (ResourceName{Public: public}) {
				t.Errorf("%s: no zone in the table, got %+v", public, got)
			}
			continue
		}
		switch zone := z.Zone([]byte(got.Private)); {
		case got.Private == "" || zone == "":
			t.Errorf("%s: no private name: %+v", public, got)
		case zone != got.Zone:
			t.Errorf("%s: %s is in %s, not %s", public, got.Private, zone, got.Zone)
		case !strings.HasSuffix(string(got.Private), "."+string(zone)):
			t.Errorf("%s: %s isn't below %s", public, got.Private, zone)
		case z.Resource(got.Private) != ResourceName{Public: got.Private}:
			t.Errorf("%s: a private name of a private name", got.Private)
		}
		if _, err := ParseName(string(got.Private)); err != nil {
			t.Error(err)
		}
	}
}

func TestZone(t *testing.T) {
	tests := []struct{ name, ask, want string }{
		{"below", "contoso.privatelink.database.windows.net", "privatelink.database.windows.net"},
		{"deep below", "a.b.privatelink.database.windows.net", "privatelink.database.windows.net"},
		{"apex", "privatelink.database.windows.net", "privatelink.database.windows.net"},
		{"template", "c.privatelink.eastus.kusto.windows.net", "privatelink.eastus.kusto.windows.net"},
		{"template apex", "privatelink.eastus.kusto.windows.net", "privatelink.eastus.kusto.windows.net"},
		{"longer of two", "app.scm.privatelink.azurewebsites.net", "scm.privatelink.azurewebsites.net"},
		{"shorter of two", "app.privatelink.azurewebsites.net", "privatelink.azurewebsites.net"},
		{"template below a zone", "r.eastus.data.privatelink.azurecr.io", "eastus.data.privatelink.azurecr.io"},
		{"no label for the template", "data.privatelink.azurecr.io", "privatelink.azurecr.io"},
		{"wildcard is no region", "*.data.privatelink.azurecr.io", "privatelink.azurecr.io"},
		{"public suffix", "database.windows.net", ""},
		{"public name", "contoso.database.windows.net", ""},
		{"half a label", "xprivatelink.database.windows.net", ""},
		{"top level", "net", ""},
		{"root", "", ""},
		{"empty labels", "a..privatelink.database.windows.net", "privatelink.database.windows.net"},
		{"trailing dot isn't canonical", "privatelink.database.windows.net.", ""},
	}
	z := DefaultZones()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := z.Zone([]byte(tt.ask)); string(got) != tt.want {
				t.Errorf("Zone(%q) = %q, want %q", tt.ask, got, tt.want)
			}
		})
	}
	if got := new(Zones).Zone([]byte("privatelink.database.windows.net")); got != "" {
		t.Errorf("the zero table knows %q", got)
	}
	if got := new(Zones).Resource("contoso.database.windows.net"); got.Private != "" {
		t.Errorf("the zero table has %+v", got)
	}
}

func TestTemplate(t *testing.T) {
	z := DefaultZones()
	for ask, want := range map[string]string{
		"contoso.privatelink.database.windows.net": "privatelink.database.windows.net",
		"c.privatelink.eastus.kusto.windows.net":   "privatelink.*.kusto.windows.net",
		"r.eastus.data.privatelink.azurecr.io":     "*.data.privatelink.azurecr.io",
		"contoso.database.windows.net":             "",
	} {
		if got := z.Template([]byte(ask)); got != want {
			t.Errorf("Template(%q) = %q, want %q", ask, got, want)
		}
	}
	if got := new(Zones).Template([]byte("privatelink.database.windows.net")); got != "" {
		t.Errorf("the zero table knows %q", got)
	}
}

func TestZoneDoesNotAllocate(t *testing.T) {
	z := DefaultZones()
	for _, name := range []string{"contoso.privatelink.database.windows.net", "www.example.com", "contoso.database.windows.net"} {
		ask := []byte(name)
		if n := testing.AllocsPerRun(100, func() { z.Zone(ask) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestWith(t *testing.T) {
	tests := []struct{ name, private, public, ask, want, zone string }{
		{"new suffix", "privatelink.corp.example", "corp.example", "db.corp.example", "db.privatelink.corp.example", "privatelink.corp.example"},
		{"zone under its suffix without the word", "pl.corp.example", "corp.example", "a.db.corp.example", "a.db.pl.corp.example", "pl.corp.example"},
		{"zone elsewhere", "internal.lan", "corp.example", "a.db.corp.example", "a.db.internal.lan", "internal.lan"},
		{"instead of the table", "privatelink-global.wvd.microsoft.com", "wvd.microsoft.com", "r.wvd.microsoft.com", "r.privatelink-global.wvd.microsoft.com", "privatelink-global.wvd.microsoft.com"},
		{"zone elsewhere instead of the table", "sql.lan", "database.windows.net", "contoso.database.windows.net", "contoso.sql.lan", "sql.lan"},
		{"longest suffix still wins", "azure.lan", "azure.com", "a.purview.azure.com", "a.privatelink.purview.azure.com", "privatelink.purview.azure.com"},
		{"suffix that had no zone", "ml.lan", "inference.ml.azure.com", "x.inference.ml.azure.com", "x.ml.lan", "ml.lan"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			z, err := DefaultZones().With(ZoneRow{Private: tt.private, Public: tt.public})
			if err != nil {
				t.Fatal(err)
			}
			got := z.Resource(Name(tt.ask))
			if string(got.Private) != tt.want || string(got.Zone) != tt.zone {
				t.Errorf("got %+v, want %s in %s", got, tt.want, tt.zone)
			}
			if zone := z.Zone([]byte(tt.want)); string(zone) != tt.zone {
				t.Errorf("Zone(%s) = %s, want %s", tt.want, zone, tt.zone)
			}
			if got := DefaultZones().Resource("contoso.database.windows.net"); got.Zone != "privatelink.database.windows.net" {
				t.Errorf("the shipped table changed: %+v", got)
			}
		})
	}
}

// FuzzZone compares the tree with a walk over every rule.
func FuzzZone(f *testing.F) {
	f.Add("c.privatelink.eastus.kusto.windows.net")
	f.Add("r.eastus.data.privatelink.azurecr.io")
	f.Add("a..b.")
	z := DefaultZones()
	f.Fuzz(func(t *testing.T, name string) {
		res := z.Resource(Name(name))
		got := z.Zone([]byte(name))
		if res.Private != "" && (got != "" || z.Zone([]byte(res.Private)) != res.Zone) {
			t.Errorf("%q: %+v in %q", name, res, got)
		}
		if _, err := ParseName(name); err != nil {
			return // the slow walk reads canonical names only
		}
		labels := strings.Split(name, ".")
		var want string
		for _, r := range z.rules {
			if r.private != nil && endsIn(labels, r.private) {
				if apex := strings.Join(labels[len(labels)-len(r.private):], "."); len(apex) > len(want) {
					want = apex
				}
			}
		}
		if want := strings.TrimSuffix(want, "."); string(got) != want {
			t.Errorf("Zone(%q) = %q, want %q", name, got, want)
		}
	})
}
