package privatelink

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// X35, D25: past the bound what is private isn't answered and not passed on, whatever has become of its
// connection; what has nothing of ours passes as ever. Before the bound nothing changes.
func TestStale(t *testing.T) {
	const (
		answered = dns.RcodeSuccess
		failed   = dns.RcodeServerFailure
	)
	s := world(t)
	demanding := service("demanding", "strict.database.windows.net")
	demanding.Strict = true
	s = apply(t, s, link.PutService{Service: demanding}, to("demanding", "corp", "10.200.0.30"))
	tests := []struct {
		name, from, ask string
		only, all       int    // the code where only strict services are too old, and where all are
		leads           string // an alias that the next plugin answers with
	}{
		{name: "public name", ask: "contoso.database.windows.net A", only: answered, all: failed},
		{name: "public name of a strict service", ask: "strict.database.windows.net A", only: failed, all: failed},
		{name: "private name of a strict service", ask: "strict." + sqlZone + " A", only: failed, all: failed},
		{name: "other type", ask: "contoso.database.windows.net HTTPS", only: answered, all: failed},
		{name: "pattern", ask: "any.azurewebsites.net A", only: answered, all: failed},
		{name: "pending, approved elsewhere for all we know", ask: "pending.database.windows.net A", only: answered, all: failed},
		{name: "suspended", ask: "suspended.database.windows.net A", only: answered, all: failed},
		{name: "targets never answered", ask: "unproven.database.windows.net A", only: answered, all: failed},
		{name: "fallback public", ask: "fallback.database.windows.net A", only: answered, all: failed},
		{name: "apex", ask: sqlZone + " SOA", only: answered, all: failed},
		{name: "reverse", ask: "5.0.200.10.in-addr.arpa PTR", only: answered, all: failed},
		{name: "alias to a name of ours", ask: "www.contoso.example A", leads: "contoso.database.windows.net.", only: answered, all: failed},
		{name: "alias to a strict name", ask: "www.contoso.example A", leads: "strict.database.windows.net.", only: failed, all: failed},
		{name: "miss", ask: "other." + sqlZone + " A", only: answered, all: answered},
		{name: "not ours", ask: "www.example.org A", only: answered, all: answered},
		{name: "root", ask: ". NS", only: answered, all: answered},
		{name: "network without the endpoint", from: bare, ask: "contoso.database.windows.net A", only: answered, all: answered},
		{name: "no network", from: stranger, ask: "contoso.database.windows.net A", only: answered, all: answered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, s)
			if tt.leads != "" {
				srv.up.reply = func(r *dns.Msg) *dns.Msg {
					m := new(dns.Msg).SetReply(r)
					m.Answer = records(r.Question[0].Name+" 300 IN CNAME "+tt.leads, tt.leads+" 300 IN A 203.0.113.1")
					return m
				}
			}
			from := tt.from
			if from == "" {
				from = corp
			}
			want := func(rcode int, ready bool) {
				t.Helper()
				srv.up.asked = nil
				m, code := srv.ask(t, from, question(tt.ask).SetEdns0(1232, false))
				if m == nil || m.Rcode != rcode || srv.Ready() != ready {
					t.Fatalf("code %d, ready %v, want %d, %v: %v", code, srv.Ready(), rcode, ready, m)
				}
				if rcode == answered {
					return
				}
				if edeOf(m) != int(dns.ExtendedErrorCodeNotReady) || m.Authoritative || len(m.Answer) > 0 || tt.leads == "" && len(srv.up.asked) > 0 {
					t.Errorf("passed on to %v, answered %v", srv.up.asked, m)
				}
			}
			want(answered, true)
			srv.stale = [2]string{"", "state not confirmed for 31s"}
			want(tt.only, true)
			srv.stale[0] = srv.stale[1]
			want(tt.all, false)
			srv.stale = [2]string{}
			want(answered, true)
		})
	}
}
