package privatelink

import (
	"testing"

	"github.com/miekg/dns"
)

// TestProofsAreForOthers: whoever may write private zones, or has an endpoint with a pattern, proves no domain
// with them. The name goes to the next plugin, and what that says stays as it is.
func TestProofsAreForOthers(t *testing.T) {
	s := apply(t, zoneWorld(t),
		record(corpZone, "TXT", "_postern", `"postern-tenant=forged"`), record(corpZone, "TXT", "*", `"postern-tenant=forged"`),
		record(corpZone, "CNAME", "proof", "_postern.corp.example."))
	for _, tt := range []struct{ name, ask, up, answer string }{
		{"record set", "_postern.corp.example TXT", "", ""},
		{"capitals", "_POSTERN.corp.example TXT", "", ""},
		{"wildcard", "_postern.sub.corp.example TXT", "", ""},
		{"pattern of an endpoint", "_postern.azurewebsites.net TXT", "", ""},
		{"alias of public DNS into a zone", "_postern.shop.example TXT", "_postern.shop.example. 60 IN CNAME any.corp.example.", "_postern.shop.example. 60 IN CNAME any.corp.example."},
	} {
		for _, old := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				srv := newServer(t, s)
				if old {
					srv.stale = [2]string{"old", "old"}
				}
				srv.up.reply = func(r *dns.Msg) *dns.Msg {
					m := new(dns.Msg).SetReply(r)
					if tt.up != "" {
						m.Answer = records(tt.up)
					}
					return m
				}
				m, _ := srv.ask(t, corp, question(tt.ask))
				if len(srv.up.asked) != 1 || m == nil {
					t.Fatalf("the next plugin was asked %q", srv.up.asked)
				}
				var want []string
				if tt.answer != "" {
					want = append(want, tt.answer)
				}
				check(t, "answer", m.Answer, want...)
			})
		}
	}
	srv := newServer(t, s)
	srv.up.reply = func(r *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records("_postern.corp.example. 60 IN TXT \"public\"")
		return m
	}
	m, _ := srv.ask(t, corp, question("proof.corp.example TXT"))
	check(t, "answer", m.Answer, "proof.corp.example. 300 IN CNAME _postern.corp.example.", `_postern.corp.example. 60 IN TXT "public"`)
}
