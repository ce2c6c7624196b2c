package privatelink

import (
	"context"
	"sync/atomic"
	"testing"

	lookup "github.com/coredns/coredns/plugin/pkg/upstream"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// looking answers with an alias of a private name as file and template do: they ask this server what it leads to. No two answers
// are the same.
type looking struct{ ttl atomic.Int64 }

func (*looking) Name() string { return "file" }

func (l *looking) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg).SetReply(r)
	c := &dns.CNAME{Hdr: header(r.Question[0].Name, dns.TypeCNAME, uint32(l.ttl.Add(1))), Target: "contoso.database.windows.net."}
	m.Answer = []dns.RR{c}
	up, err := lookup.New().Lookup(ctx, request.Request{W: w, Req: r}, c.Target, r.Question[0].Qtype)
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	m.Answer = append(m.Answer, up.Answer...)
	return 0, w.WriteMsg(m)
}

// TestFastpathReentered: an answer of a plugin behind isn't kept, though a name of ours was looked up for it.
func TestFastpathReentered(t *testing.T) {
	t.Parallel()
	next := new(looking)
	srv := startFastBefore(t, loops(t), next, nil)
	b := packed(t, "www.example.net A", nil)
	for i := range 20 {
		m := new(dns.Msg)
		if err := m.Unpack(srv.raw(t, corpLoop, srv.quick, b)); err != nil || len(m.Answer) != 3 {
			t.Fatalf("answer %v, error %v", m, err)
		}
		if n := next.ttl.Load(); n < int64(i+1) || m.Answer[0].Header().Ttl != uint32(n) {
			t.Fatalf("query %d: the next plugin was asked %d times, the answer is %v", i+1, n, m.Answer)
		}
	}
}
