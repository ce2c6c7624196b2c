package coremain

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// dsServer answers from a table: what a name and type gets, records of the answer before "--", of the authority after it.
// What isn't in the table doesn't exist and isn't signed.
func dsServer(t *testing.T, table map[string]string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
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
				rr, err := dns.NewRR(line)
				if err != nil {
					t.Error(err)
					continue
				}
				*section = append(*section, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return conn.LocalAddr().String()
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
	if got := c.upstreams(); !slices.Equal(got, []string{upstream}) {
		t.Errorf("upstreams %v", got)
	}
	if got := c.answersAt(); !slices.Equal(got, []string{"127.0.0.1:53"}) {
		t.Errorf("the node answers at %v", got)
	}
	names := c.serviceNames()
	if len(names) != 2 || c.privateZone(names[0]) != "pl.test" || c.privateZone(names[1]) != "" || suffixOf(string(names[1])) != "web.test" {
		t.Errorf("names %v", names)
	}
	e := &examination{asker: asker{timeout: time.Second}, names: names[:1], pools: declaredPools(c), upstreams: []string{upstream}, nodes: []string{upstream},
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
	out := new(strings.Builder)
	if e.signed = []string{"a.b.test", "b.test", "b.test"}; e.print(out) != 1 || !strings.Contains(out.String(), `validate-except { "b.test"; };`) {
		t.Error(out)
	}
}
