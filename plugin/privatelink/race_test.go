package privatelink

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// Clients of two networks ask while the snapshot changes under them: each gets an address of its own
// network or, while the endpoint is suspended, the public one.
func TestConcurrent(t *testing.T) {
	srv := newServer(t, nil)
	s := world(t)
	var newest atomic.Pointer[link.Snapshot]
	newest.Store(s)
	srv.Snapshot = newest.Load
	srv.Next = test.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records(r.Question[0].Name + " 300 IN A 203.0.113.1")
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
	stop := make(chan struct{})
	var asking sync.WaitGroup
	errs := make(chan error, 4)
	for i := range 4 {
		client, own := corp, "10.200.0.5"
		if i%2 == 1 {
			client, own = lab, "10.201.0.5"
		}
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r := question("contoso." + sqlZone + " A")
				w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: client}}
				if _, err := srv.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r); err != nil {
					errs <- err
					return
				}
				if got := w.got[0].Answer[0].(*dns.A).A.String(); got != own && got != "203.0.113.1" {
					errs <- fmt.Errorf("client %s was told %s", client, got)
					return
				}
			}
		})
	}
	id := link.ID("sql-10.200.0.5")
	for i := range 200 {
		var c link.Change = link.Suspend{Endpoint: id, LinkID: linkID(s, id)}
		if i%2 == 1 {
			c = link.Resume{Endpoint: id, LinkID: linkID(s, id)}
		}
		s = apply(t, s, c)
		newest.Store(s)
	}
	close(stop)
	asking.Wait()
	select {
	case err := <-errs:
		t.Error(err)
	default:
	}
	if g := srv.generation(s); g.snapshot != s || srv.generation(s) != g {
		t.Error("the newest snapshot isn't the one in use")
	}
}
