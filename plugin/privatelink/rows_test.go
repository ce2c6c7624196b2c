package privatelink_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// oddRows are those whose private zone isn't "privatelink." and the public suffix: a name of the row and its private
// name, written down by hand. "{h}" is the host.
var oddRows = map[[2]string]struct{ public, private string }{
	{"privatelink.batch.azure.com", "{regionName}.batch.azure.com"}:                                                 {"{h}.eastus.batch.azure.com", "{h}.eastus.privatelink.batch.azure.com"},
	{"privatelink.batch.azure.com", "{regionName}.service.batch.azure.com"}:                                         {"{h}.eastus.service.batch.azure.com", "{h}.eastus.service.privatelink.batch.azure.com"},
	{"privatelink-global.wvd.microsoft.com", "wvd.microsoft.com"}:                                                   {"{h}.wvd.microsoft.com", "{h}.privatelink-global.wvd.microsoft.com"},
	{"{subzone}.privatelink.{regionName}.azmk8s.io", "{regionName}.azmk8s.io"}:                                      {"{h}.sub.eastus.azmk8s.io", "{h}.sub.privatelink.eastus.azmk8s.io"},
	{"privatelink.{regionName}.azurecontainerapps.io", "azurecontainerapps.io"}:                                     {"{h}.env.eastus.azurecontainerapps.io", "{h}.env.privatelink.eastus.azurecontainerapps.io"},
	{"{regionName}.data.privatelink.azurecr.io", "{regionName}.data.azurecr.io"}:                                    {"{h}.eastus.data.azurecr.io", "{h}.eastus.data.privatelink.azurecr.io"},
	{"privatelink.redisenterprise.cache.azure.net", "{cachename}.{region}.redisenterprise.cache.azure.net"}:         {"{h}.eastus.redisenterprise.cache.azure.net", "{h}.eastus.privatelink.redisenterprise.cache.azure.net"},
	{"privatelink.redis.azure.net", "{region}.redis.azure.net"}:                                                     {"{h}.eastus.redis.azure.net", "{h}.eastus.privatelink.redis.azure.net"},
	{"privatelink.ts.eventgrid.azure.net", "eventgrid.azure.net"}:                                                   {"{h}.eastus-1.ts.eventgrid.azure.net", "{h}.eastus-1.privatelink.ts.eventgrid.azure.net"},
	{"privatelink.azurehealthcareapis.com", "workspace.azurehealthcareapis.com"}:                                    {"{h}.workspace.azurehealthcareapis.com", "{h}.workspace.privatelink.azurehealthcareapis.com"},
	{"privatelink.azurehealthcareapis.com", "fhir.azurehealthcareapis.com"}:                                         {"{h}.fhir.azurehealthcareapis.com", "{h}.fhir.privatelink.azurehealthcareapis.com"},
	{"privatelink.azure-automation.net", "{regionCode}.azure-automation.net"}:                                       {"{h}.webhook.eus2.azure-automation.net", "{h}.webhook.eus2.privatelink.azure-automation.net"},
	{"privatelink.siterecovery.windowsazure.com", "{regionCode}.siterecovery.windowsazure.com"}:                     {"{h}.eus2.siterecovery.windowsazure.com", "{h}.eus2.privatelink.siterecovery.windowsazure.com"},
	{"privatelink.vaultcore.azure.net", "vault.azure.net"}:                                                          {"{h}.vault.azure.net", "{h}.privatelink.vaultcore.azure.net"},
	{"privatelink.blob.core.windows.net", "blob.storage.azure.net"}:                                                 {"{h}.z1.blob.storage.azure.net", "{h}.z1.privatelink.blob.core.windows.net"},
	{"scm.privatelink.azurewebsites.net", "scm.azurewebsites.net"}:                                                  {"{h}.scm.azurewebsites.net", "{h}.scm.privatelink.azurewebsites.net"},
	{"privatelink.{dnsPrefix}.database.usgovcloudapi.net", "{instanceName}.{dnsPrefix}.database.usgovcloudapi.net"}: {"{h}.a1b2.database.usgovcloudapi.net", "{h}.privatelink.a1b2.database.usgovcloudapi.net"},
	{"privatelink.batch.usgovcloudapi.net", "{regionName}.batch.usgovcloudapi.net"}:                                 {"{h}.gov.batch.usgovcloudapi.net", "{h}.gov.privatelink.batch.usgovcloudapi.net"},
	{"privatelink.batch.usgovcloudapi.net", "{regionName}.service.batch.usgovcloudapi.net"}:                         {"{h}.gov.service.batch.usgovcloudapi.net", "{h}.gov.service.privatelink.batch.usgovcloudapi.net"},
	{"privatelink.vaultcore.usgovcloudapi.net", "vault.usgovcloudapi.net"}:                                          {"{h}.vault.usgovcloudapi.net", "{h}.privatelink.vaultcore.usgovcloudapi.net"},
	{"privatelink.siterecovery.windowsazure.us", "{regionCode}.siterecovery.windowsazure.us"}:                       {"{h}.gv.siterecovery.windowsazure.us", "{h}.gv.privatelink.siterecovery.windowsazure.us"},
	{"privatelink.servicebus.windows.us", "servicebus.usgovcloudapi.net"}:                                           {"{h}.servicebus.usgovcloudapi.net", "{h}.privatelink.servicebus.windows.us"},
	{"scm.privatelink.azurewebsites.us", "scm.azurewebsites.us"}:                                                    {"{h}.scm.azurewebsites.us", "{h}.scm.privatelink.azurewebsites.us"},
	{"privatelink-global.wvd.azure.us", "wvd.azure.us"}:                                                             {"{h}.wvd.azure.us", "{h}.privatelink-global.wvd.azure.us"},
	{"privatelink.batch.chinacloudapi.cn", "{region}.batch.chinacloudapi.cn"}:                                       {"{h}.cn.batch.chinacloudapi.cn", "{h}.cn.privatelink.batch.chinacloudapi.cn"},
	{"privatelink.batch.chinacloudapi.cn", "{region}.service.batch.chinacloudapi.cn"}:                               {"{h}.cn.service.batch.chinacloudapi.cn", "{h}.cn.service.privatelink.batch.chinacloudapi.cn"},
	{"privatelink.signalr.azure.cn", "service.signalr.azure.cn"}:                                                    {"{h}.service.signalr.azure.cn", "{h}.service.privatelink.signalr.azure.cn"},
	{"privatelink-global.wvd.azure.cn", "wvd.azure.cn"}:                                                             {"{h}.wvd.azure.cn", "{h}.privatelink-global.wvd.azure.cn"},
}

// overridden are the private zones that give way to another one of their suffix: a line for the whole name brings them back.
var overridden = map[string]bool{
	"privatelink-global.wvd.microsoft.com": true, "privatelink-global.wvd.azure.us": true, "privatelink-global.wvd.azure.cn": true,
	"privatelink.servicebus.windows.us": true,
}

// rowCase is a name of a row, its private name ("" for none), and its endpoint's address.
type rowCase struct{ public, private, address string }

// rowCases makes a name of each row, and what answers all of them: services and endpoints, and lines of privatelink.
func rowCases(t *testing.T) (cases []rowCase, objects, lines string) {
	placeholder := regexp.MustCompile(`\{\w+\}`)
	var o, l strings.Builder
	for i, row := range link.DefaultZones().Rows() {
		host := fmt.Sprintf("r%03d", i)
		c := rowCase{address: fmt.Sprintf("10.200.%d.%d", i/100, i%100+4)}
		switch odd, isOdd := oddRows[[2]string{row.Private, row.Public}]; {
		case isOdd:
			c.public, c.private = strings.ReplaceAll(odd.public, "{h}", host), strings.ReplaceAll(odd.private, "{h}", host)
		case row.Private == "":
			c.public = host + "." + row.Public
		case row.Private == "privatelink."+row.Public:
			// Each word of the row is the same label on both sides.
			fill := func(s string) string {
				return placeholder.ReplaceAllStringFunc(s, func(w string) string { return "w-" + strings.ToLower(strings.Trim(w, "{}")) })
			}
			c.public, c.private = host+"."+fill(row.Public), host+"."+fill(row.Private)
		default:
			t.Errorf("row %d, %s of %s, is not privatelink. and the suffix: write down what its names are", i, row.Private, row.Public)
			continue
		}
		if overridden[row.Private] {
			fmt.Fprintf(&l, "  zone %s %s\n", row.Private, c.public)
		}
		fmt.Fprintf(&o, " linkservice %[1]s {\n  names %[2]s\n  target 10.20.0.4:443\n  approve corp\n }\n linkendpoint %[1]s {\n  service %[1]s\n  network corp\n  address %[3]s\n }\n",
			host, c.public, c.address)
		cases = append(cases, c)
	}
	return cases, o.String(), l.String()
}

// TestEveryRowIsAnswered: a name made from each row of the table is answered by a node with a CNAME to the right private name and its
// address, the private name with the address; without a private zone the name has the address itself.
func TestEveryRowIsAnswered(t *testing.T) {
	cases, objects, lines := rowCases(t)
	if len(cases) != 238 || strings.Count(lines, "\n") != 4 {
		t.Fatalf("%d rows, lines for\n%s", len(cases), lines)
	}
	addr, _ := start(t, ".:0 {\n bind 127.0.0.1\n linknetwork corp 127.0.0.0/8 {\n  endpoints 10.200.0.0/16\n }\n"+objects+" privatelink {\n"+lines+" }\n}\n")
	c := dial(t, "127.0.0.1", addr)
	is := func(rr dns.RR, want string) bool { // the record without its time to live
		f := strings.Fields(rr.String())
		return len(f) == 5 && strings.Join([]string{f[0], f[3], f[4]}, " ") == want
	}
	for _, tt := range cases {
		switch m := c.ask(tt.public+".", dns.TypeA); {
		case m.Rcode != dns.RcodeSuccess || !m.Authoritative:
			t.Errorf("%s: %v", tt.public, m)
		case tt.private == "":
			if len(m.Answer) != 1 || !is(m.Answer[0], tt.public+". A "+tt.address) {
				t.Errorf("%s: want its address alone, got %v", tt.public, m.Answer)
			}
			continue
		case len(m.Answer) != 2 || !is(m.Answer[0], tt.public+". CNAME "+tt.private+".") || !is(m.Answer[1], tt.private+". A "+tt.address):
			t.Errorf("%s: want %s, got %v", tt.public, tt.private, m.Answer)
		}
		if m := c.ask(tt.private+".", dns.TypeA); len(m.Answer) != 1 || !is(m.Answer[0], tt.private+". A "+tt.address) {
			t.Errorf("%s: got %v", tt.private, m.Answer)
		}
	}
}
