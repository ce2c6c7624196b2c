package privatelink

import (
	"context"
	"crypto"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin/dnssec"
	"github.com/coredns/coredns/plugin/pkg/cache"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
)

// TestSignedAtOnce: the plugin that signs appends to the sections, whose records all answers share. Each of many answers
// at once has its own signatures.
func TestSignedAtOnce(t *testing.T) {
	k := &dns.DNSKEY{Hdr: header("azure.net.", dns.TypeDNSKEY, 3600), Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	secret, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), "key")
	for end, what := range map[string]string{".key": k.String() + "\n", ".private": k.PrivateKeyString(secret.(crypto.PrivateKey))} {
		if err := os.WriteFile(base+end, []byte(what), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := dnssec.ParseKeyFile(base+".key", base+".private")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer(t, world(t))
	h := dnssec.New([]string{"azure.net."}, []*dnssec.DNSKEY{key}, false, srv.Privatelink, cache.New[[]dns.RR](100))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: corp}}
				if _, err := h.ServeDNS(context.Background(), w, question("kv.vault.azure.net A").SetEdns0(1232, true)); err != nil {
					t.Error(err)
					return
				}
				covered := map[uint16]int{}
				for _, rr := range w.got[0].Answer {
					if s, ok := rr.(*dns.RRSIG); ok {
						covered[s.TypeCovered]++
					}
				}
				if covered[dns.TypeA] != 1 || covered[dns.TypeCNAME] != 1 {
					t.Errorf("signatures by type: %v", covered)
					return
				}
			}
		})
	}
	wg.Wait()
	// Without a race as well: no section that is handed on has room for more.
	for _, ask := range []string{"kv.vault.azure.net A", "kv.vault.azure.net AAAA", "kv.vault.azure.net TXT", "privatelink.vaultcore.azure.net NS", "www.contoso.example TXT"} {
		srv.up.reply = func(r *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(r)
			m.Answer = records(r.Question[0].Name + " 300 IN CNAME kv.vault.azure.net.")
			return m
		}
		w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: corp}}
		if _, err := srv.ServeDNS(context.Background(), w, question(ask)); err != nil {
			t.Fatal(err)
		}
		if m := w.got[0]; ask != "www.contoso.example TXT" && cap(m.Answer) > len(m.Answer) || cap(m.Ns) > len(m.Ns) {
			t.Errorf("%s: room for %d and %d records, %d and %d are in", ask, cap(m.Answer), cap(m.Ns), len(m.Answer), len(m.Ns))
		}
	}
}
