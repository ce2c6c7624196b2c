package privatelink_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/plugin/privatelink"
	"github.com/postern-link/postern/plugin/privatelink/fastpath"
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

// logged keeps what is logged until the end of the test, and returns what gives the lines in which a text stands.
func logged(t *testing.T) (with func(text string) []string) {
	out := new(lockedBuffer)
	before, flags := log.Writer(), log.Flags()
	log.SetOutput(out)
	log.SetFlags(0)
	t.Cleanup(func() { log.SetOutput(before); log.SetFlags(flags) })
	return func(text string) (lines []string) {
		out.mu.Lock()
		defer out.mu.Unlock()
		for line := range strings.Lines(out.b.String()) {
			if strings.Contains(line, text) {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
		}
		return lines
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *lockedBuffer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

// TestFastpathReasons: where the fast path would change what was asked for there is none, which the metric says, and the log in one line
// with the reason; where it is on, or the Corefile says what it shall be, there is nothing to be said.
func TestFastpathReasons(t *testing.T) {
	const (
		notUsed = "fastpath is not used"
		plugins = "fastpath has every query answered by the plugins"
		front   = " stands in front and would not see what is answered"
		blocks  = "another server block has the address as well"
	)
	cert, key, _ := privatelink.SelfSigned(t)
	for _, tc := range []struct{ name, key, properties, lines, want, said, why string }{
		{name: "nothing in the way", lines: "errors\ncache\nforward . 127.0.0.1:9"},
		{name: "on", properties: "fastpath on", lines: "errors"},
		{name: "off", properties: "fastpath off", want: "off"},
		{name: "plugins", properties: "fastpath plugins", lines: "errors", want: "plugins"},
		{name: "plugins, also in front", properties: "fastpath plugins", lines: "log", want: "plugin"},
		{name: "log", lines: "log", want: "plugin", said: plugins, why: "log" + front},
		{name: "acl", lines: "acl {\nallow net 127.0.0.0/8\n}", want: "plugin", said: plugins, why: "acl" + front},
		{name: "rewrite", lines: "rewrite name a.example b.example", want: "plugin", said: plugins, why: "rewrite" + front},
		{name: "bufsize", lines: "bufsize 512", want: "plugin", said: plugins, why: "bufsize" + front},
		{name: "any", lines: "any", want: "plugin", said: plugins, why: "any" + front},
		{name: "shed", lines: "shed", want: "shed", said: notUsed, why: "shed writes the answers"},
		{name: "view", lines: "view v {\nexpr true\n}", want: "view", said: notUsed, why: "view chooses among server blocks"},
		{name: "proxyproto", lines: "proxyproto {\nallow 10.0.0.0/8\n}", want: "proxyproto", said: notUsed, why: "proxyproto reads the datagrams first"},
		{name: "tsig", lines: "tsig {\nsecret key. c2VjcmV0\n}", want: "tsig", said: notUsed, why: "tsig signs the answers"},
		{name: "another zone", key: "net:PORT", want: "zone", said: notUsed, why: "the block is not that of the zone . alone"},
		{name: "more zones", key: ".:PORT, net:PORT", want: "zone", said: notUsed, why: "the block is not that of the zone . alone"},
		{name: "transport", key: "tls://.:PORT", lines: "tls " + cert + " " + key, want: "transport", said: notUsed, why: "the block serves no plain DNS"},
		{name: "address", key: ".:0", want: "address", said: notUsed, why: "the address or the port is not a plain one"},
		{name: "a more specific block", lines: "}\nexample.org:PORT {\nbind 127.0.0.1\nerrors", want: "block", said: notUsed, why: blocks},
		{name: "blocks by view", lines: "view v {\nexpr true\n}\n}\n.:PORT {\nbind 127.0.0.1\nview w {\nexpr true\n}\nprivatelink",
			want: "view", said: notUsed, why: "view chooses among server blocks"},
		{name: "a view, and a block for the rest", lines: "view v {\nexpr true\n}\n}\n.:PORT {\nbind 127.0.0.1\nprivatelink",
			want: "view", said: notUsed, why: "view chooses among server blocks"},
		{name: "a block on another address", lines: "}\nexample.org:PORT {\nbind 127.0.0.2\nerrors"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lines := logged(t)
			port := freeport.Get(t)
			in := fastCorefile(port, tc.properties, tc.lines)
			at, server := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("dns://127.0.0.1:%d", port)
			body := string(in.Body())
			if tc.key != "" {
				body = tc.key + strings.TrimPrefix(body, fmt.Sprintf(".:%d", port))
			}
			switch tc.want {
			case "transport":
				server = "tls://" + at
			case "address":
				server = "dns://127.0.0.1:0"
			}
			instance := startInstance(t, caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns",
				Contents: []byte(strings.ReplaceAll(body, "PORT", fmt.Sprint(port)))})
			stop := sync.OnceFunc(func() { end(t, instance) })
			defer stop()
			if tc.want != "transport" && tc.want != "address" {
				if m := dial(t, "127.1.0.9", at).ask("contoso.database.windows.net.", dns.TypeA); len(m.Answer) != 2 {
					t.Errorf("answer %v", m)
				}
			}
			// CoreDNS's own socket may have answered before ours was there.
			eventually(t, fmt.Sprintf("reason %q", tc.want), func() bool { return fastGauge(t, server) == tc.want })
			stop()
			var want []string
			if tc.said != "" {
				want = []string{fmt.Sprintf("[INFO] plugin/privatelink: %s server=%s reason=%s why=%q", tc.said, server, tc.want, tc.why)}
			}
			if got := lines("plugin/privatelink: fastpath"); !slices.Equal(got, want) {
				t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestFastpathFilterLater: as long as the kernel's filter can't be set the metric says so, and the log in one line; then it is on.
func TestFastpathFilterLater(t *testing.T) {
	lines := logged(t)
	port := freeport.Get(t)
	server := fmt.Sprintf("dns://127.0.0.1:%d", port)
	release := sync.OnceFunc(fastpath.Hold())
	defer release()
	instance := startInstance(t, fastCorefile(port, "", "errors"))
	defer end(t, instance)
	eventually(t, "no filter", func() bool { return fastGauge(t, server) == "filter" })
	release()
	eventually(t, "a filter", func() bool { return fastGauge(t, server) == "" })
	want := "[INFO] plugin/privatelink: fastpath gets a part of the queries only, for now server=" + server +
		` why="the kernel's numbers for the sockets aren't found yet"`
	if got := lines("plugin/privatelink: fastpath"); !slices.Equal(got, []string{want}) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), want)
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
