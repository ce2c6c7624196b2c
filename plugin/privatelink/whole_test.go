package privatelink_test

import (
	"crypto"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/pires/go-proxyproto"

	"github.com/postern-link/postern/internal/dnstest"
	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/plugin/privatelink"
)

// oneNetwork is a server for one network of all clients on loopback, with two endpoints of one service.
const oneNetwork = `KEY {
    bind 127.0.0.1
    linknetwork one 127.0.0.0/8 {
        endpoints 10.200.0.0/24
    }
    linkservice sql {
        names contoso.database.windows.net
        target 10.20.0.4:1433
        approve *
    }
    linkendpoint sql-a {
        service sql
        network one
        address 10.200.0.5
    }
    linkendpoint sql-b {
        service sql
        network one
        address 10.200.0.6
    }
    privatelink
    MORE
}
`

// corefile is oneNetwork with a key and more directives.
func corefile(key string, more ...string) string {
	return strings.NewReplacer("KEY", key, "MORE", strings.Join(more, "\n    ")).Replace(oneNetwork)
}

const (
	publicName  = "contoso.database.windows.net."
	privateName = "contoso.privatelink.database.windows.net."
	privateZone = "privatelink.database.windows.net."
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// ede returns the extended error of an answer, -1 where there is none.
func ede(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return int(e.InfoCode)
			}
		}
	}
	return -1
}

// A server that forwards to itself, and one whose resolver forwards a suffix back, find it, say so, and go on
// with private names.
func TestServerLoop(t *testing.T) {
	port := freeport.Get(t)
	back := startResolver(t, fmt.Sprintf("127.0.0.1:%d", port), "database.windows.net.")
	for name, upstream := range map[string]string{"itself": fmt.Sprintf("127.0.0.1:%d", port), "a resolver": back} {
		t.Run(name, func(t *testing.T) {
			udp, _ := start(t, corefile(fmt.Sprintf(".:%d", port), "forward . "+upstream))
			ask := func(name string) (*dns.Msg, error) {
				r := new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(1232, false)
				m, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(r, udp)
				return m, err
			}
			i := 0
			eventually(t, "a name that loops fails, and says why", func() bool {
				i++
				m, err := ask(fmt.Sprintf("n%d.database.windows.net.", i))
				return err == nil && m.Rcode == dns.RcodeServerFailure && ede(m) == int(dns.ExtendedErrorCodeNoReachableAuthority)
			})
			m, err := ask(privateName)
			if err != nil || len(m.Answer) != 2 {
				t.Errorf("private name: %v %v", m, err)
			}
		})
	}
}

// startResolver is a resolver that asks a server again for names below a suffix, and says of others that they don't exist.
func startResolver(t *testing.T, server, suffix string) string {
	t.Helper()
	return dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
		if dns.IsSubDomain(suffix, r.Question[0].Name) {
			m.Rcode = dns.RcodeServerFailure
			q := new(dns.Msg).SetQuestion(r.Question[0].Name, r.Question[0].Qtype)
			if answer, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(q, server); err == nil {
				m.Rcode, m.Answer = answer.Rcode, answer.Answer
			}
		}
		_ = w.WriteMsg(m)
	})
}

// D10: AXFR and IXFR for a peer that is named, with a key of TSIG where that is demanded; refused for others.
func TestServerTransfer(t *testing.T) {
	const secret = "c2VjcmV0IGZvciB0cmFuc2ZlcnMgb2YgdGVzdHM="
	_, tcp := start(t, corefile(".:0", "tsig {\n secret xfr. "+secret+"\n require AXFR IXFR\n}", "transfer {\n to 127.0.0.1\n}"))
	get := func(from string, r *dns.Msg, signed bool) (rrs []dns.RR, err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
		conn, err := d.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		tr := &dns.Transfer{Conn: &dns.Conn{Conn: conn}}
		if signed {
			tr.TsigSecret = map[string]string{"xfr.": secret}
			r.SetTsig("xfr.", dns.HmacSHA256, 300, time.Now().Unix())
		}
		ch, err := tr.In(r, tcp)
		if err != nil {
			return nil, err
		}
		for e := range ch {
			if e.Error != nil {
				return nil, e.Error
			}
			rrs = append(rrs, e.RR...)
		}
		return rrs, nil
	}
	rrs, err := get("127.0.0.1", new(dns.Msg).SetAxfr(privateZone), true)
	if err != nil || len(rrs) != 5 { // SOA NS A A SOA
		t.Fatalf("%v %v", rrs, err)
	}
	serial := rrs[0].(*dns.SOA).Serial
	if rrs, err := get("127.0.0.1", new(dns.Msg).SetIxfr(privateZone, serial, ".", "."), true); err != nil || len(rrs) != 1 {
		t.Errorf("IXFR of the newest: %v %v", rrs, err)
	}
	if rrs, err := get("127.0.0.1", new(dns.Msg).SetAxfr(privateZone), false); err == nil {
		t.Errorf("without a key: %v", rrs)
	}
	if rrs, err := get("127.0.0.2", new(dns.Msg).SetAxfr(privateZone), true); err == nil {
		t.Errorf("of another peer: %v", rrs)
	}
}

// The order of several addresses is rotated where loadbalance is asked to; all are there each time, with one TTL.
func TestServerRotates(t *testing.T) {
	udp, _ := start(t, corefile(".:0", "loadbalance"))
	c := dial(t, "127.0.0.1", udp)
	first := map[string]bool{}
	eventually(t, "each address has been the first", func() bool {
		m := c.ask(publicName, dns.TypeA)
		if len(m.Answer) != 3 || m.Answer[0].Header().Rrtype != dns.TypeCNAME || m.Answer[1].Header().Ttl != m.Answer[2].Header().Ttl {
			t.Fatalf("%v", m)
		}
		first[m.Answer[1].(*dns.A).A.String()] = true
		return len(first) == 2
	})
}

// The client of a query that a trusted proxy sends on is the one that the header names, by UDP and by TCP.
func TestServerProxyHeader(t *testing.T) {
	up := startPublic(t)
	conf := strings.NewReplacer("UPSTREAM", up.addr, "PROPERTY", "ttl 5", "linknetwork two 127.0.0.2/32", "linknetwork two 10.2.0.0/16",
		"bind 127.0.0.1\n", "bind 127.0.0.1\n    proxyproto {\n        allow 127.0.0.1/32\n    }\n").Replace(twoNetworks)
	udp, tcp := start(t, conf)
	packed, err := new(dns.Msg).SetQuestion(privateName, dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			addr, transport := udp, proxyproto.UDPv4
			var src, dst net.Addr = &net.UDPAddr{IP: net.IPv4(10, 2, 0, 9), Port: 4000}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}
			if network == "tcp" {
				addr, transport = tcp, proxyproto.TCPv4
				src, dst = &net.TCPAddr{IP: net.IPv4(10, 2, 0, 9), Port: 4000}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}
			}
			header, err := (&proxyproto.Header{Version: 2, Command: proxyproto.PROXY, TransportProtocol: transport, SourceAddr: src, DestinationAddr: dst}).Format()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			query := append([]byte(nil), header...)
			if network == "tcp" {
				query = append(query, byte(len(packed)>>8), byte(len(packed)))
			}
			if _, err := conn.Write(append(query, packed...)); err != nil {
				t.Fatal(err)
			}
			m, err := (&dns.Conn{Conn: conn}).ReadMsg()
			if err != nil || lastA(m) != "10.201.0.5" {
				t.Errorf("%v %v", m, err)
			}
		})
	}
}

// D19: with serve_stale, cache goes on to answer what it knows when the upstream is dead; private names are ours as before.
func TestServerStale(t *testing.T) {
	up := startPublic(t)
	up.ttl.Store(1)
	udp, _ := start(t, corefile(".:0", "cache 30 {\n success 1000 1 0\n serve_stale 1h immediate\n}", "forward . "+up.addr))
	c := dial(t, "127.0.0.1", udp)
	if got := lastA(c.ask("www.example.org.", dns.TypeA)); got != "203.0.113.1" {
		t.Fatal(got)
	}
	up.dead.Store(true)
	eventually(t, "an answer that is over is given again", func() bool {
		m := c.ask("www.example.org.", dns.TypeA)
		if lastA(m) != "203.0.113.1" {
			t.Fatalf("%v", m)
		}
		return m.Answer[0].Header().Ttl == 0
	})
	if m := c.ask(privateName, dns.TypeA); len(m.Answer) != 2 {
		t.Errorf("%v", m)
	}
}

// DNS over TLS and over HTTPS have the same answers as UDP (see TestTransports), and the client's network is the one of its address, in
// turn and at once, with a cache (D13). HTTPS has no zone transfer (D10).
func TestServerTransports(t *testing.T) {
	up := startPublic(t)
	cert, key, roots := privatelink.SelfSigned(t)
	serve := func(t *testing.T, scheme string) (addr string) {
		_, addr = start(t, strings.NewReplacer(".:0 {", scheme+"://.:0 {\n    tls "+cert+" "+key+"\n    transfer {\n        to *\n    }",
			"UPSTREAM", up.addr, "PROPERTY", "ttl 5").Replace(twoNetworks))
		return addr
	}
	t.Run("TLS", func(t *testing.T) {
		addr := serve(t, "tls")
		var all []asker
		for from, want := range wantByNetwork {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			conn, err := tls.DialWithDialer(&d, "tcp", addr, &tls.Config{RootCAs: roots})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := &client{t, &dns.Conn{Conn: conn}}
			all = append(all, asker{"TLS from " + from, want, c.exchange})
		}
		eachItsOwn(t, []string{publicName, privateName}, all)
	})
	t.Run("HTTPS", func(t *testing.T) {
		addr := serve(t, "https")
		var all []asker
		for from, want := range wantByNetwork {
			c := privatelink.ClientHTTPS(from, roots)
			defer c.CloseIdleConnections()
			for _, method := range []string{"POST", "GET"} {
				all = append(all, asker{method + " from " + from, want, func(r *dns.Msg) (*dns.Msg, error) {
					query, err := r.Pack()
					if err != nil {
						return nil, err
					}
					answer, err := privatelink.AskHTTPS(c, method, addr, query)
					m := new(dns.Msg)
					if err == nil {
						err = m.Unpack(answer)
					}
					return m, err
				}})
			}
		}
		eachItsOwn(t, []string{publicName, privateName}, all)
		for _, a := range all {
			if a.want[0] == "203.0.113.1" {
				continue // of no network: what the upstream says
			}
			if m, err := a.exchange(new(dns.Msg).SetAxfr(privateZone)); err != nil || m.Rcode != dns.RcodeRefused || len(m.Answer) > 0 {
				t.Errorf("AXFR, %s: %v %v", a.name, m, err)
			}
		}
	})
}

// wantByNetwork is what the clients of the networks of twoNetworks, and one of none, get for the public and the private name.
var wantByNetwork = map[string][]string{
	"127.0.0.1": {"10.200.0.5", "10.200.0.5"}, "127.0.0.2": {"10.201.0.5", "10.201.0.5"}, "127.0.0.3": {"203.0.113.1", "203.0.113.1"},
}

// Where dnssec is asked to sign the public suffix, what privatelink answers in it is signed, its zone inside too.
func TestServerSigned(t *testing.T) {
	const signed = "database.windows.net."
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: signed, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	secret, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), fmt.Sprintf("K%s+013+%05d", signed, key.KeyTag()))
	for path, text := range map[string]string{base + ".key": key.String() + "\n", base + ".private": key.PrivateKeyString(secret.(crypto.PrivateKey))} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	udp, _ := start(t, corefile(".:0", "dnssec "+signed+" {\n key file "+base+"\n}"))
	ask := func(name string, rrtype uint16) *dns.Msg {
		t.Helper()
		m, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(new(dns.Msg).SetQuestion(name, rrtype).SetEdns0(1232, true), udp)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	verify := func(what string, section []dns.RR, rrtype uint16) {
		t.Helper()
		var set []dns.RR
		var sig *dns.RRSIG
		for _, rr := range section {
			if s, ok := rr.(*dns.RRSIG); ok && s.TypeCovered == rrtype {
				sig = s
			} else if rr.Header().Rrtype == rrtype {
				set = append(set, rr)
			}
		}
		if sig == nil || len(set) == 0 {
			t.Errorf("%s: not signed: %v", what, section)
		} else if err := sig.Verify(key, set); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	verify("key", ask(signed, dns.TypeDNSKEY).Answer, dns.TypeDNSKEY)
	verify("A", ask(privateName, dns.TypeA).Answer, dns.TypeA)
	verify("CNAME", ask(publicName, dns.TypeA).Answer, dns.TypeCNAME)
	verify("A behind the public name", ask(publicName, dns.TypeA).Answer, dns.TypeA)
	verify("apex of the zone inside", ask(privateZone, dns.TypeSOA).Answer, dns.TypeSOA)
	verify("no AAAA", ask(privateName, dns.TypeAAAA).Ns, dns.TypeNSEC)
}
