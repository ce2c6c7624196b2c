//go:build linux

package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"github.com/postern-link/postern/internal/freeport"
)

// TestMain lets the test binary play the roles that the benchmark starts itself for.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "-role" {
		if err := play(os.Args[2], os.Args[3:]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Under the race detector each of those processes would sleep a second before it exits.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// Every kind of load gets through to the real backend, with no proxy between.
func TestLoadAgainstSink(t *testing.T) {
	b := &bench{self: os.Args[0], net: plan(127)}
	for i, target := range b.net.targets {
		b.net.targets[i] = netip.AddrPortFrom(target.Addr(), freeport.Get(t))
	}
	if err := b.startSink(); err != nil {
		t.Fatal(err)
	}
	defer b.sink.stop()
	for _, tt := range (&bench{flows: 20, net: b.net}).proxyTests() {
		t.Run(tt.name, func(t *testing.T) {
			l, err := b.startLoad(order{
				Kind: tt.kind, Target: b.net.targets[0], Sources: b.net.sources, Conns: min(tt.conns, 8), Rate: 200,
				Seconds: 0.2, Warm: 0.02,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer l.stop()
			if err := l.awaitBegan(); err != nil {
				t.Fatal(err)
			}
			out, err := l.outcome()
			if err != nil {
				t.Fatal(err)
			}
			said, _ := json.Marshal(out)
			switch tt.kind {
			case loadUpload, loadDownload:
				if out.Bytes == 0 {
					t.Errorf("no bytes: %s", said)
				}
			case loadIdle:
				if out.Count != 8 || out.Errors != 0 {
					t.Errorf("not 8 idle flows: %s", said)
				}
			default:
				if out.Count == 0 || out.Errors != 0 || out.P99 < out.P50 || out.P50 == 0 {
					t.Errorf("no requests, or errors: %s", said)
				}
			}
		})
	}
}

// The proxy that this program is itself carries requests and bulk, and the backend takes headers off.
func TestRelay(t *testing.T) {
	b := &bench{self: os.Args[0], net: plan(127)}
	for i, target := range b.net.targets {
		b.net.targets[i] = netip.AddrPortFrom(target.Addr(), freeport.Get(t))
	}
	b.net.endpoint = netip.AddrPortFrom(b.net.endpoint.Addr(), freeport.Get(t))
	b.dir = t.TempDir()
	if err := b.startSink(); err != nil {
		t.Fatal(err)
	}
	defer b.sink.stop()
	p, err := b.start(b.relay())
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if err := p.await(func() error { return b.ask(proxyTest{}) }); err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{"", "PROXY UNKNOWN\r\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"} {
		o := order{Kind: loadConnect, Target: b.net.endpoint, Sources: b.net.sources, Conns: 4, Seconds: 0.2, Warm: 0.02}
		if first != "" {
			o.First = append([]byte(first+string(modeEcho)), make([]byte, messageSize-1)...)
		}
		l, err := b.begun(o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.stop()
		if out, err := l.outcome(); err != nil || out.Count == 0 || out.Errors > 0 {
			t.Errorf("behind %q: %+v, %v", first, out, err)
		}
	}
	l, err := b.begun(order{Kind: loadUpload, Target: b.net.endpoint, Sources: b.net.sources, Conns: 4, Seconds: 0.2, Warm: 0.02})
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop()
	if out, err := l.outcome(); err != nil || out.Bytes == 0 {
		t.Errorf("bulk: %+v, %v", out, err)
	}
}

// A load without a backend says so instead of reporting nothing as a figure.
func TestLoadWithoutBackend(t *testing.T) {
	b := &bench{self: os.Args[0], net: plan(127)}
	target := netip.AddrPortFrom(b.net.targets[0].Addr(), freeport.Get(t))
	for _, kind := range []string{loadUpload, loadRequest, "nonsense"} {
		t.Run(kind, func(t *testing.T) {
			l, err := b.startLoad(order{Kind: kind, Target: target, Sources: b.net.sources, Conns: 1, Seconds: 0.1})
			if err != nil {
				t.Fatal(err)
			}
			defer l.stop()
			if l.awaitBegan() == nil {
				if out, err := l.outcome(); err == nil {
					t.Errorf("outcome %+v", out)
				}
			}
		})
	}
}
