package coremain

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/dnstest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink"
)

// dsServer answers from a table: what a name and type gets, records of the answer before "--", of the authority after it.
// What isn't in the table doesn't exist and isn't signed.
func dsServer(t *testing.T, table map[string]string) string {
	t.Helper()
	return dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		text, ok := table[r.Question[0].Name+" "+dns.TypeToString[r.Question[0].Qtype]]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		section := &m.Answer
		for line := range strings.Lines(text) {
			switch line = strings.TrimSpace(line); line {
			case "--":
				section = &m.Ns
			case "NXDOMAIN":
				m.Rcode = dns.RcodeNameError
			case "SERVFAIL":
				m.Rcode = dns.RcodeServerFailure
			case "":
			default:
				*section = append(*section, dnstest.Records(t, line)...)
			}
		}
		_ = w.WriteMsg(m)
	})
}

// Which case a name is in, as far as the proofs say that come back.
func TestSecurityOf(t *testing.T) {
	t.Parallel()
	const (
		sig  = " 60 IN RRSIG NSEC 13 1 60 20300101000000 20200101000000 1 . AAAA\n"
		root = ". 60 IN SOA . . 1 1 1 1 1\n. 60 IN RRSIG SOA 13 0 60 20300101000000 20200101000000 1 . AAAA\n"
		ds   = " 60 IN DS 1 13 2 AA\n"
	)
	soa := func(zone string) string { return zone + " 60 IN SOA . . 1 1 1 1 1\n" }
	hash := func(name string) string { return strings.ToLower(dns.HashName(name, dns.SHA1, 0, "")) }
	signedTest := map[string]string{". SOA": root, "test. DS": "test." + ds}
	tests := []struct {
		name, ask string
		more      map[string]string
		want      security
		err       string
	}{
		{name: "top-level domain without a signature", ask: "a.net.", want: security{insecureDelegation, "net."},
			more: map[string]string{"net. DS": "--\n" + soa(".") + "net. 60 IN NSEC org. NS RRSIG NSEC\nnet." + sig}},
		{name: "parent without a signature", ask: "a.b.test.", want: security{unsignedParent, "test."}, more: map[string]string{"b.test. DS": "--\n" + soa("test.")}},
		{name: "delegated without a signature", ask: "a.b.test.", want: security{insecureDelegation, "b.test."},
			more: map[string]string{"b.test. DS": "--\n" + soa("test.") + "b.test. 60 IN NSEC c.test. NS RRSIG NSEC\nb.test." + sig}},
		{name: "inside of a signed zone", ask: "a.b.test.", want: security{signedParent, "test."}, more: map[string]string{
			"b.test. DS":   "--\n" + soa("test.") + "b.test. 60 IN NSEC c.test. A RRSIG NSEC\nb.test." + sig,
			"a.b.test. DS": "--\n" + soa("test.") + "a.b.test. 60 IN NSEC c.test. A RRSIG NSEC\na.b.test." + sig}},
		{name: "not there in a signed zone", ask: "a.b.test.", want: security{signedParent, "test."}, more: map[string]string{
			"b.test. DS": "NXDOMAIN\n--\n" + soa("test.") + "a.test. 60 IN NSEC c.test. NS RRSIG NSEC\na.test." + sig}},
		{name: "a signed zone below", ask: "a.b.test.", want: security{signedParent, "b.test."}, more: map[string]string{
			"b.test. DS": "b.test." + ds, "a.b.test. DS": "NXDOMAIN\n--\n" + soa("b.test.") + "b.test. 60 IN NSEC z.b.test. SOA NS RRSIG NSEC\nb.test." + sig}},
		{name: "NSEC3 of a delegation", ask: "b.test.", want: security{insecureDelegation, "b.test."}, more: map[string]string{
			"b.test. DS": "--\n" + soa("test.") + hash("b.test.") + ".test. 60 IN NSEC3 1 0 0 - " + hash("zz.test.") + " NS\n" + hash("b.test.") + ".test." + sig}},
		{name: "NSEC3 of a name", ask: "b.test.", want: security{signedParent, "test."}, more: map[string]string{
			"b.test. DS": "--\n" + soa("test.") + hash("b.test.") + ".test. 60 IN NSEC3 1 0 0 - " + hash("zz.test.") + " A RRSIG\n" + hash("b.test.") + ".test." + sig}},
		{name: "NSEC3 with opt-out", ask: "b.test.", want: security{insecureDelegation, "b.test."}, more: map[string]string{
			"b.test. DS": "--\n" + soa("test.") + strings.Repeat("0", 32) + ".test. 60 IN NSEC3 1 1 0 - " + strings.Repeat("v", 32) + " NS\n" + strings.Repeat("0", 32) + ".test." + sig}},
		{name: "server that leaves signatures out", ask: "a.test.", more: map[string]string{". SOA": ". 60 IN SOA . . 1 1 1 1 1"}, err: "gives no signatures"},
		{name: "server that fails", ask: "a.test.", more: map[string]string{"test. DS": "SERVFAIL"}, err: "says SERVFAIL for DS of test."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := map[string]string{}
			for _, m := range []map[string]string{signedTest, tt.more} {
				for k, v := range m {
					table[k] = v
				}
			}
			got, err := asker{timeout: 5 * time.Second}.securityOf(context.Background(), dsServer(t, table), tt.ask)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v %v", got, err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %v %v, want %v", got, err, tt.want)
			}
		})
	}
}

// A loop, a resolver that asks others, and one that isn't there are told apart by the node's own answers.
func TestDoctorVerdicts(t *testing.T) {
	t.Parallel()
	upstream := dsServer(t, map[string]string{". SOA": ". 60 IN SOA . . 1 1 1 1 1"})
	others := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN A 203.0.113.1"})
	ours := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN CNAME a.pl.test.\na.pl.test. 60 IN A 10.200.0.5"})
	merged := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN A 10.200.0.5\na.db.test. 60 IN A 203.0.113.1"})
	c, err := parseCorefile("Corefile", []byte(".:53 {\n bind 127.0.0.1\n linknetwork corp 10.1.0.0/16 {\n  endpoints 10.200.0.0/24\n }\n linkservice a {\n  names a.db.test *.web.test\n  target 10.0.0.1:1\n }\n"+
		" privatelink {\n  zone pl.test db.test\n }\n forward . "+upstream+" tls://127.0.0.1:1\n}\n"), directives)
	if err != nil {
		t.Fatal(err)
	}
	if plain, others := upstreamsOf(c.forwards(), "a.db.test"); !slices.Equal(plain, []string{upstream}) || !slices.Equal(others, []string{"tls://127.0.0.1:1"}) {
		t.Errorf("upstreams %v, %v", plain, others)
	}
	if got := c.answersAt(); !slices.Equal(got, []string{"127.0.0.1:53"}) {
		t.Errorf("the node answers at %v", got)
	}
	names := c.serviceNames()
	if len(names) != 2 || c.privateZone(names[0]) != "pl.test" || c.privateZone(names[1]) != "" || suffixOf(string(names[1])) != "web.test" {
		t.Errorf("names %v", names)
	}
	e := &examination{asker: asker{timeout: time.Second}, names: names[:1], pools: declaredPools(c), forwards: c.forwards(), nodes: []string{upstream},
		resolvers: []string{others, ours, merged}}
	e.run(context.Background(), c.privateZone)
	var got []string
	for _, i := range e.items {
		got = append(got, string(i.verdict))
	}
	// dnssec of the suffix and of the zone, loop, and the resolvers
	if want := []string{"unknown", "unknown", "ok", "FAULT", "ok", "FAULT"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: %+v", got, want, e.items)
	}
	// Where the API has made pools too, an address in none of the Corefile's is a fault only if it is the public one.
	public := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN A 203.0.113.1"})
	api := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN A 10.210.0.5"})
	both := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN A 10.200.0.5\na.db.test. 60 IN A 10.210.0.5"})
	far := &examination{asker: asker{timeout: time.Second}, pools: e.pools, elsewhere: true, resolvers: []string{others, ours, merged, api, both},
		forwards: []forwarding{{from: ".", zones: []string{"."}, plain: []string{public}}}}
	got = nil
	for _, at := range far.resolvers {
		for _, i := range far.resolver(context.Background(), at, "a.db.test") {
			got = append(got, string(i.verdict))
		}
	}
	if want := []string{"FAULT", "ok", "FAULT", "unknown", "unknown"}; !slices.Equal(got, want) {
		t.Errorf("with pools of the API: got %v, want %v", got, want)
	}
	for text, want := range map[string]bool{".:53 {\n privatelink\n}\n": false, ".:53 {\n privatelink\n linkapi 127.0.0.1:1\n}\n": true,
		".:53 {\n linkstore bolt\n}\n": false, ".:53 {\n linkstore etcd https://127.0.0.1:1\n}\n": true} {
		c, err := parseCorefile("Corefile", []byte(text), directives)
		if err != nil {
			t.Fatal(err)
		}
		if c.poolsElsewhere() != want {
			t.Errorf("%q: pools elsewhere: %v", text, !want)
		}
	}
	out := new(strings.Builder)
	if e.signed = []string{"a.b.test", "b.test", "b.test"}; e.print(out) != 1 || !strings.Contains(out.String(), `validate-except { "b.test"; };`) {
		t.Error(out)
	}
}

// Which servers the node asks for a name follows from the server block and from the first forward in it that takes the name.
func TestUpstreamsOf(t *testing.T) {
	t.Parallel()
	c, err := parseCorefile("Corefile", []byte(`.:53 {
    bind 127.0.0.1
    privatelink
    forward corp.test 192.0.2.1 192.0.2.2:5353
    forward . 192.0.2.3 {
        except Secret.test
    }
    forward secret.test tls://192.0.2.4
}
.:53 {
    bind 127.0.0.2
    forward . 192.0.2.5
}
db.test a.test:53 {
    forward sub.db.test 192.0.2.6
    forward . 192.0.2.7 192.0.2.3
}
local.test {
    whoami
}
`), append(slices.Clone(directives), "whoami"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, plain, others string }{
		{"www.example", "192.0.2.3:53 192.0.2.5:53", ""},
		{"a.CORP.test", "192.0.2.1:53 192.0.2.2:5353 192.0.2.5:53", ""},
		{"xcorp.test", "192.0.2.3:53 192.0.2.5:53", ""},
		{"a.secret.test", "192.0.2.5:53", "tls://192.0.2.4"},
		{"x.db.test", "192.0.2.7:53 192.0.2.3:53", ""},
		{"x.sub.db.test", "192.0.2.6:53", ""},
		{"a.test", "192.0.2.7:53 192.0.2.3:53", ""},
	} {
		plain, others := upstreamsOf(c.forwards(), tt.name)
		if strings.Join(plain, " ") != tt.plain || strings.Join(others, " ") != tt.others {
			t.Errorf("%s: %v, %v; want %s, %s", tt.name, plain, others, tt.plain, tt.others)
		}
	}
}

// A server that is dead is named once and not waited for again, one that refuses is said to, and each zone is asked for where the node
// asks for it.
func TestDoctorDeadAndRefused(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // which nobody reads from
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var dead atomic.Int64
	refuses := dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused)) })
	node := dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if dns.IsSubDomain("refused.test.", r.Question[0].Name) {
			m := new(dns.Msg).SetRcode(r, dns.RcodeRefused).SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "closed"}}
			_ = w.WriteMsg(m)
			return
		}
		if r.Question[0].Qclass == dns.ClassINET {
			dead.Add(1)
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
			return
		}
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused))
	})
	c, err := parseCorefile("Corefile", []byte(".:53 {\n bind 127.0.0.1\n privatelink\n forward refused.test "+refuses+"\n forward . "+silent.LocalAddr().String()+"\n}\n"), directives)
	if err != nil {
		t.Fatal(err)
	}
	e := &examination{asker: asker{timeout: 300 * time.Millisecond}, forwards: c.forwards(), nodes: []string{node}, resolvers: []string{refuses, silent.LocalAddr().String()}}
	for i := range 20 {
		e.names = append(e.names, link.Name(fmt.Sprintf("a.n%d.test", i)))
	}
	e.names = append(e.names, "a.refused.test")
	began := time.Now()
	e.run(context.Background(), func(link.Name) link.Name { return "" })
	if took := time.Since(began); took > 10*time.Second { // 300 ms twice, and not for each name; the node is asked for 1.5 s
		t.Errorf("it took %s", took)
	}
	find := func(what, about string) string {
		for _, i := range e.items {
			if i.what == what && i.about == about {
				return string(i.verdict) + " " + i.detail
			}
		}
		return "nothing"
	}
	at := silent.LocalAddr().String()
	for _, tt := range []struct{ what, about, want string }{
		{"forward", at, "FAULT it doesn't answer"},
		{"dnssec", "n3.test", "unknown " + at + " doesn't answer"},
		{"dnssec", "refused.test", "FAULT " + refuses + " refuses this machine (REFUSED)"},
		{"loop", "n3.test", "FAULT the node at " + node + " fails for names below it"},
		{"loop", "refused.test", "unknown the node at " + node + " refuses this machine's names below it (Blocked: closed)"},
		{"resolver " + refuses, "a.n3.test", "FAULT REFUSED: it doesn't answer this machine (allow it there"},
		{"resolver " + at, "a.n3.test", "unknown " + at + " doesn't answer"},
	} {
		if got := find(tt.what, tt.about); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s %s: %s, want %s", tt.what, tt.about, got, tt.want)
		}
	}
	named := 0
	for _, i := range e.items {
		if i.what == "forward" {
			named++
		}
	}
	if named != 1 || dead.Load() != 20*3 {
		t.Errorf("%d dead servers are named, the node was asked %d times", named, dead.Load())
	}
}

// What another server says isn't taken for the node's word about a loop, a server that forward asks by TCP alone is asked so, and without a
// pool nobody says whose an address is.
func TestDoctorSaysNoMore(t *testing.T) {
	t.Parallel()
	fails := func(text string) string {
		return dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetRcode(r, dns.RcodeServerFailure).SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: text}}
			_ = w.WriteMsg(m)
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	tcp := &dns.Server{Listener: l, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused))
	})}
	done := make(chan error, 1)
	go func() { done <- tcp.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcp.Shutdown(); <-done })
	at := l.Addr().String()
	public := dsServer(t, map[string]string{"a.db.test. A": "a.db.test. 60 IN A 203.0.113.1"})
	for _, tt := range []struct{ name, node, loop string }{
		{"another server's word", fails("at delegation db.test"), "FAULT the node at %s fails for names below it (No Reachable Authority: at delegation db.test)"},
		{"the node's word", fails(privatelink.LeadsBack), "FAULT the servers of forward send names below it back to the node at %s"},
	} {
		c, err := parseCorefile("Corefile", []byte(".:53 {\n bind 127.0.0.1\n privatelink\n forward . "+at+" {\n  force_tcp\n }\n}\n"), directives)
		if err != nil {
			t.Fatal(err)
		}
		e := &examination{asker: asker{timeout: time.Second}, names: []link.Name{"a.db.test"}, forwards: c.forwards(), nodes: []string{tt.node}, resolvers: []string{public}}
		e.run(context.Background(), func(link.Name) link.Name { return "" })
		var got []string
		for _, i := range e.items {
			got = append(got, string(i.verdict)+" "+i.detail)
		}
		want := []string{"FAULT tcp://" + at + " refuses this machine", strings.ReplaceAll(tt.loop, "%s", tt.node), "unknown 203.0.113.1: the Corefile declares no pool"}
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", tt.name, got, want)
		}
	}
}
