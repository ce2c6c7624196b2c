package dnstest_test

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/internal/dnstest"
)

// What is served is answered, and the port is free again when the test is over.
func TestServe(t *testing.T) {
	var addr string
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	t.Run("served", func(t *testing.T) {
		addr = dnstest.Serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetReply(r)
			m.Answer = dnstest.Records(t, "a.example. 60 IN A 192.0.2.1", "a.example. 60 IN A 192.0.2.2")
			_ = w.WriteMsg(m)
		})
		m, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(q, addr)
		if err != nil || len(m.Answer) != 2 {
			t.Errorf("%v %v", m, err)
		}
	})
	if m, _, err := (&dns.Client{Timeout: 100 * time.Millisecond}).Exchange(q, addr); err == nil {
		t.Errorf("after the test: %v", m)
	}
}
