package privatelink

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

const benchNames = 1000

// ask runs a handler on the questions in turn.
func ask(b *testing.B, h plugin.Handler, asks []string) {
	b.Helper()
	var questions []*dns.Msg
	for _, a := range asks {
		questions = append(questions, question(a))
	}
	w := &remote{addr: (&test.ResponseWriter{RemoteIP: corp}).RemoteAddr()}
	ctx := context.Background()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r := questions[i%len(questions)]
		w.got = w.got[:0]
		code, err := h.ServeDNS(ctx, request.NewScrubWriter(r, w), r)
		if err != nil || code != dns.RcodeSuccess || len(w.got[0].Answer) == 0 {
			b.Fatalf("%v, code %d: %v", err, code, w.got)
		}
		i++
	}
}

// BenchmarkAnswer answers 1,000 names: privatelink names, public names, and as a peer CoreDNS's file
// plugin with the privatelink names in a zone.
func BenchmarkAnswer(b *testing.B) {
	s := apply(b, link.Empty(), link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.200.0.0/16")}})
	zone := new(strings.Builder)
	fmt.Fprintf(zone, "%s 10 IN SOA %s nobody.invalid. 1 3600 1200 604800 10\n%s 10 IN NS %s\n", sqlZone, sqlZone, sqlZone, sqlZone)
	var public, private []string
	for i := range benchNames {
		id, addr := link.ID(fmt.Sprintf("sql%d", i)), netip.AddrFrom4([4]byte{10, 200, byte(i/200 + 1), byte(i%200 + 1)})
		s = apply(b, s, link.PutService{Service: service(id, link.Name(string(id)+".database.windows.net"))}, to(id, "corp", addr.String()))
		public = append(public, string(id)+".database.windows.net A")
		private = append(private, string(id)+"."+sqlZone+" A")
		fmt.Fprintf(zone, "%s.%s 10 IN A %s\n", id, sqlZone, addr)
	}
	parsed, err := file.Parse(strings.NewReader(zone.String()), sqlZone, "zone", 0)
	if err != nil {
		b.Fatal(err)
	}
	peer := file.File{Zones: file.Zones{Z: map[string]*file.Zone{sqlZone: parsed}, Names: []string{sqlZone}}}
	srv := newServer(b, s)
	b.Run("private", func(b *testing.B) { ask(b, srv, private) })
	b.Run("public", func(b *testing.B) { ask(b, srv, public) })
	b.Run("file", func(b *testing.B) { ask(b, peer, private) })
}
