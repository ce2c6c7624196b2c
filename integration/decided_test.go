package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/control"
	signin "github.com/postern-link/postern/control/identity"
)

// fastAndSlow are three server blocks on the edge, one for each way in which queries by UDP are answered, with these lines in the first,
// and their addresses. Names of the private zone that nobody has don't exist, so that there is an answer of ours, with a time to live,
// before and after.
func fastAndSlow(lines string) (corefile string, servers []string) {
	var text strings.Builder
	for i, way := range []string{"on", "plugins", "off"} {
		fmt.Fprintf(&text, ".:%d {\n bind 10.1.0.1\n%s privatelink {\n  fastpath %s\n  miss nxdomain privatelink.database.windows.net\n }\n"+
			" cache 30\n forward . 203.0.113.53 {\n  prefer_udp\n }\n}\n",
			5300+i, lines, way)
		servers, lines = append(servers, fmt.Sprint("10.1.0.1:", 5300+i)), ""
	}
	return text.String(), servers
}

// publicAddress is that of every name at an upstream server that is [public].
const publicAddress = "203.0.113.1"

// public is an upstream server that has one address for every name.
func public(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	if r.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300},
			A: net.ParseIP(publicAddress)}}
	}
	_ = w.WriteMsg(m)
}

// api is the control API of a node on the edge, as the operator sees it.
type api struct {
	t                *testing.T
	client           *http.Client
	base, token, sub string
}

// api starts a node with an API whose callers have made nothing yet, and returns the addresses that answer DNS.
func (g *ground) api() (*api, []string) {
	g.t.Helper()
	const at = "127.0.0.1:8443"
	file := filepath.Join(g.dir, "identities.json")
	if err := signin.Init(file); err != nil {
		g.t.Fatal(err)
	}
	made, err := signin.CreateToken(g.t.Context(), file,
		signin.Holder{Identity: "root", Tenant: "operator", Roles: []control.Grant{{Subscription: "*", Role: control.Owner}}})
	if err != nil {
		g.t.Fatal(err)
	}
	var known struct {
		Tenants []struct{ Subscriptions []struct{ ID string } }
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	corefile, servers := fastAndSlow(" linkstore bolt DIR/postern.db\n" +
		" linkapi " + at + " {\n  identities DIR/identities.json\n }\n linkproxy\n")
	g.postern(corefile, at)
	cert, err := os.ReadFile(filepath.Join(g.dir, "postern-api.crt"))
	if err != nil {
		g.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return g.dial("edge", at) }}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &api{t: g.t, base: "https://" + at, token: made.Secret, sub: known.Tenants[0].Subscriptions[0].ID,
		client: &http.Client{Transport: transport, Timeout: 20 * time.Second}}, servers
}

// path is where something of a provider is in the group of these tests.
func (a *api) path(provider, rest string) string {
	return fmt.Sprintf("/subscriptions/%s/resourceGroups/rg/providers/%s.Network/%s", a.sub, provider, rest)
}

// do makes a request and returns the whole answer, which must be a good one, and when it had come.
func (a *api) do(method, path, body string) ([]byte, time.Time) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.base+path+"?api-version=2025-05-01", bytes.NewReader([]byte(body)))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	came := time.Now()
	if err != nil || resp.StatusCode/100 != 2 {
		a.t.Fatalf("%s %s: %s, %v: %s", method, path, resp.Status, err, text)
	}
	return text, came
}

// TestDecidedIsSeen (D16): a provider rejects, suspends and removes the connections of endpoints, and deletes a service, a consumer
// deletes an endpoint, all through the API. Clients that ask in a loop have the endpoint until then, and not 1 s after the API has
// answered, whatever they ask and whichever way they are answered; what is suspended or rejected comes back when that is taken back.
// Nothing may be kept for more than 10 s.
func TestDecidedIsSeen(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	g.answers("upstream", "203.0.113.53:53", public)
	g.echoes("provider", "10.20.0.4:1433")
	a, servers := g.api()
	var all []*watched
	var services, endpoints []string
	for i, label := range []string{"rejected", "suspended", "removed", "deleted", "gone"} {
		all = append(all, &watched{label: label, address: fmt.Sprintf("10.200.0.%d", i+4)})
		services = append(services, fmt.Sprintf(`{"name":%q,"names":["%s.database.windows.net"],"port":1433,"pin":"address",
			"targets":["10.20.0.4:1433"],"approve":["*"],"visible":["*"]}`, label, label))
		endpoints = append(endpoints, fmt.Sprintf(`{"name":%q,"network":"one","subnet":"pe","service":%q,"address":%q}`, label, label,
			all[i].address))
	}
	a.do("PUT", "/subscriptions/"+a.sub+"/resourceGroups/rg", `{"location":"local"}`)
	a.do("POST", "/subscriptions/"+a.sub+"/providers/Postern.Network/apply", fmt.Sprintf(`{"subscription":%q,"resourceGroup":"rg",
		"networks":[{"name":"one","prefixes":["10.1.0.0/16","10.200.0.0/24"],"subnets":{"pe":"10.200.0.0/24"}}],
		"services":[%s],"endpoints":[%s]}`,
		a.sub, strings.Join(services, ","), strings.Join(endpoints, ",")))
	connection := func(one *watched) string {
		t.Helper()
		var of struct{ Value []struct{ Name string } }
		text, _ := a.do("GET", a.path("Microsoft", "privateLinkServices/"+one.label+"/privateEndpointConnections"), "")
		if err := json.Unmarshal(text, &of); err != nil || len(of.Value) != 1 {
			t.Fatalf("%v: %s", err, text)
		}
		return "privateLinkServices/" + one.label + "/privateEndpointConnections/" + of.Value[0].Name
	}
	says := func(status string) string {
		return fmt.Sprintf(`{"properties":{"privateLinkServiceConnectionState":{"status":%q}}}`, status)
	}

	w := g.watch("corp-a", all, servers...)
	for _, one := range all {
		w.seen(one, true)
		one.isThere(time.Now())
	}
	for _, step := range []struct {
		one                      *watched
		method, provider, object string
		body                     string
		there                    bool // after it
	}{
		{all[0], "PUT", "Microsoft", connection(all[0]), says("Rejected"), false},
		{all[1], "POST", "Postern", connection(all[1]) + "/suspend", "", false},
		{all[2], "DELETE", "Microsoft", connection(all[2]), "", false},
		{all[3], "DELETE", "Microsoft", "privateEndpoints/deleted", "", false},
		{all[4], "POST", "Postern", "privateLinkServices/gone/forceDelete", "", false},
		{all[1], "POST", "Postern", connection(all[1]) + "/resume", "", true},
		{all[0], "PUT", "Microsoft", connection(all[0]), says("Approved"), true},
		{all[1], "POST", "Postern", connection(all[1]) + "/suspend", "", false},
	} {
		step.one.either()
		_, came := a.do(step.method, a.path(step.provider, step.object), step.body)
		if !step.there {
			step.one.isGone(came)
		}
		w.seen(step.one, step.there)
		if step.there {
			step.one.isThere(time.Now())
		}
	}
	time.Sleep(soon + 100*time.Millisecond) // what is over stays over
	w.end()
}
