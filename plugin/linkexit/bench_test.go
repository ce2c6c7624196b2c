package linkexit

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/plugin/privatelink"
)

// BenchmarkJudge is the cost of a query that is passed on, before the next plugin: alone, with a list, and with all
// limits on.
func BenchmarkJudge(b *testing.B) {
	all := func(s *settings) {
		open(s)
		s.rate, s.txt, s.names, s.length = [2]int{1000000, 1000000}, [2]int{1000000, 1000000}, maxNames, 253
	}
	for _, bb := range []struct {
		name string
		set  func(*settings)
	}{
		{"open", open},
		{"list", func(s *settings) { s.mode, s.list = modeList, written(b, ".example.com\n") }},
		{"rate", func(s *settings) { open(s); s.rate = [2]int{1000000, 1000000} }},
		{"limits", all},
	} {
		r := ruleOf(bb.set)
		var queries []query
		for i := range 1000 {
			ask := question(fmt.Sprintf("host%d.www.example.com A", i%100))
			queries = append(queries, query{
				rule: r, r: ask, name: fold(ask.Question[0].Name),
				client: privatelink.Client{Network: "corp", Addr: netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i)})},
			})
		}
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			now := int64(0)
			for i := 0; b.Loop(); i++ {
				q := &queries[i%len(queries)]
				now += 1000
				if v := r.judge(q, now); v.reason != passed {
					b.Fatal(v.reason)
				}
			}
		})
		b.Run(bb.name+"/parallel", func(b *testing.B) {
			start := time.Now()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if v := r.judge(&queries[i%len(queries)], int64(time.Since(start))); v.reason != passed {
						b.Error(v.reason)
						return
					}
				}
			})
		})
	}
}

// BenchmarkFilter is the cost of an answer with eight addresses that all pass.
func BenchmarkFilter(b *testing.B) {
	world := snapshot(b)
	m := new(dns.Msg)
	for i := range 8 {
		m.Answer = append(m.Answer, records(b, fmt.Sprintf("www.example.com. 300 IN A 198.51.100.%d", i+1))...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if s := (sieve{snapshot: world}); s.message(m) != m {
			b.Fatal("changed")
		}
	}
}
