package privatelink_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/internal/freeport"
)

// fastCorefile is a server with one name, whose privatelink has the given properties and whose block the given lines.
func fastCorefile(port uint16, properties, lines string) caddy.Input {
	return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: fmt.Appendf(nil, `.:%d {
	bind 127.0.0.1
	linknetwork corp 127.1.0.0/16 {
		endpoints 10.200.0.0/24
	}
	linkservice contoso-sql {
		names contoso.database.windows.net
		target 10.20.0.4:1433
		approve corp
	}
	linkendpoint contoso-sql-corp {
		service contoso-sql
		network corp
		address 10.200.0.5
	}
	privatelink {
		%s
	}
	%s
}
`, port, properties, lines)}
}

// fastGauge returns the reason for which a server has no fast path: "" where it has one, "none" where nothing is said.
func fastGauge(t *testing.T, server string) string {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := "none"
	for _, f := range families {
		if f.GetName() != "coredns_privatelink_fastpath" {
			continue
		}
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["server"] == server {
				if found != "none" || (m.Gauge.GetValue() == 1) != (labels["reason"] == "") {
					t.Errorf("metric of %s: %v", server, f)
				}
				found = labels["reason"]
			}
		}
	}
	return found
}

// TestFastpathReasons: where the fast path would change what was asked for there is none.
func TestFastpathReasons(t *testing.T) {
	for _, tc := range []struct{ name, properties, lines, want string }{
		{"nothing in the way", "", "errors\ncache\nforward . 127.0.0.1:9", ""},
		{"on", "fastpath on", "errors", ""},
		{"off", "fastpath off", "", "off"},
		{"plugins", "fastpath plugins", "errors", "plugins"},
		{"log", "", "log", "plugin"},
		{"acl", "", "acl {\nallow net 127.0.0.0/8\n}", "plugin"},
		{"rewrite", "", "rewrite name a.example b.example", "plugin"},
		{"bufsize", "", "bufsize 512", "plugin"},
		{"any", "", "any", "plugin"},
		{"shed", "", "shed", "shed"},
		{"view", "", "view v {\nexpr true\n}", "view"},
		{"proxyproto", "", "proxyproto {\nallow 10.0.0.0/8\n}", "proxyproto"},
		{"a more specific block", "", "}\nexample.org:PORT {\nbind 127.0.0.1\nerrors", "block"},
		{"a block on another address", "", "}\nexample.org:PORT {\nbind 127.0.0.2\nerrors", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			port := freeport.Get(t)
			in := fastCorefile(port, tc.properties, strings.ReplaceAll(tc.lines, "PORT", fmt.Sprint(port)))
			instance := startInstance(t, in)
			defer end(t, instance)
			at := fmt.Sprintf("127.0.0.1:%d", port)
			if m := dial(t, "127.1.0.9", at).ask("contoso.database.windows.net.", dns.TypeA); tc.name != "view" && len(m.Answer) != 2 {
				t.Errorf("answer %v", m)
			}
			// CoreDNS's own socket may have answered before ours was there.
			eventually(t, fmt.Sprintf("reason %q", tc.want), func() bool { return fastGauge(t, "dns://"+at) == tc.want })
		})
	}
}

// TestFastpathReload: no query is lost while the fast path goes from Corefile to Corefile, is switched off and on, leaves all to the plugins, and
// a reload fails that wants it where it can't be.
func TestFastpathReload(t *testing.T) {
	port := freeport.Get(t)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	on, off := fastCorefile(port, "", "errors"), fastCorefile(port, "fastpath off", "errors")
	more := fastCorefile(port, "", "errors\nmultisocket 3")
	front := fastCorefile(port, "", "acl {\nallow net 127.0.0.0/8\n}")
	bad := fastCorefile(port, "fastpath on", "log")
	words := map[string]string{string(off.Body()): "off", string(front.Body()): "plugin"}
	instance := startInstance(t, on)
	defer func() { end(t, instance) }()

	var sent, answered, wrong atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP("127.1.0.9")}}).Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		b, err := new(dns.Msg).SetQuestion("contoso.database.windows.net.", dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		window := make(chan struct{}, 64) // as many are under way at a time
		wg.Go(func() {
			for id := uint16(0); ; id++ {
				select {
				case <-stop:
					return
				case window <- struct{}{}:
				case <-time.After(10 * time.Second):
					return // answers are missing
				}
				binary.BigEndian.PutUint16(b, id)
				if _, err := conn.Write(b); err != nil {
					t.Error(err)
					return
				}
				sent.Add(1)
			}
		})
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if n < 12 || buf[7] != 2 { // CNAME and A
					wrong.Add(1)
				}
				answered.Add(1)
				<-window
			}
		}()
	}
	progress := func() {
		t.Helper()
		for from, deadline := answered.Load(), time.Now().Add(10*time.Second); answered.Load() < from+500; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d queries are answered", answered.Load(), sent.Load())
			}
		}
	}
	for i, in := range []caddy.Input{on, off, on, front, bad, off, front, more, front, on, bad, more, on, off, more} {
		progress()
		next, err := instance.Restart(in)
		if string(in.Body()) == string(bad.Body()) {
			if want := "fastpath: dns://" + at + ": log stands in front"; err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v, want %s", err, want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		instance = next
		want := words[string(in.Body())]
		for deadline := time.Now().Add(10 * time.Second); fastGauge(t, "dns://"+at) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("reload %d: reason %q, want %q", i, fastGauge(t, "dns://"+at), want)
			}
		}
	}
	progress()
	close(stop)
	wg.Wait()
	for deadline := time.Now().Add(10 * time.Second); answered.Load() < sent.Load() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if lost := sent.Load() - answered.Load(); lost != 0 || wrong.Load() != 0 {
		t.Errorf("%d of %d queries lost, %d answers wrong", lost, sent.Load(), wrong.Load())
	}
	t.Logf("%d queries", sent.Load())
}
