package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

func TestDatagrams(t *testing.T) {
	for _, size := range []int{0, 1, 1200, 9000, 65507} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			w := udpWorld(t, udpEcho(t), Settings{})
			c := udpDial(t, w.first())
			sent := bytes.Repeat([]byte("x"), size)
			c.Write(sent)
			if got := said(t, c); got != string(sent) {
				t.Fatalf("%d bytes came back", len(got))
			}
			all := slices.Collect(w.proxy.List())
			if len(all) != 1 || all[0].Protocol != link.UDP || all[0].State != FlowEstablished || all[0].Endpoint != "e" {
				t.Errorf("flows %+v", all)
			}
			if w.metric(t, "postern_proxy_flows_active", "udp") != 1 || w.metric(t, "postern_proxy_flows_active") != 0 {
				t.Error("it isn't counted as a live flow of UDP")
			}
			w.proxy.Close()
			if lines := w.log.lines("flow ended", "protocol=udp", "reason=drain", fmt.Sprintf("to_target=%d to_client=%d", size, size)); len(lines) != 1 {
				t.Errorf("lines %q", w.log.lines("flow"))
			}
		})
	}
}

// TestDatagramsRefused: what may not pass doesn't, and nobody is told.
func TestDatagramsRefused(t *testing.T) {
	t.Parallel()
	target := udpTarget(t)
	for _, tt := range []struct {
		name   string
		change func(w *world)
		reason policy.Reason
	}{
		{"not approved", func(w *world) {
			w.apply(link.Decide{Endpoint: "e", LinkID: w.connection("e").LinkID, State: link.Rejected})
		}, policy.NotApproved},
		{"suspended", func(w *world) { w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID}) }, policy.Suspended},
		{"not in the allow-list", func(w *world) { w.apply(endpoint("e", "svc", w.host(), "127.9.0.0/16")) }, policy.SourceDenied},
		{"no snapshot", func(w *world) { w.now.Store(nil) }, policy.PolicyError},
		{"a target that is forbidden", func(w *world) {
			s := *w.proxy.settings.Load()
			s.Own = []netip.AddrPort{udpAddr(target)}
			w.proxy.settings.Store(&s)
		}, policy.NoTarget},
		{"a peer that must send a PROXY header", func(w *world) {
			s := *w.proxy.settings.Load()
			s.InboundHeaders = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			w.proxy.settings.Store(&s)
		}, policy.Malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := udpWorld(t, udpAddr(target), Settings{})
			c := udpDial(t, w.first())
			tt.change(w)
			w.oneWindow()
			for n := range 20 {
				c.Write([]byte("x"))
				w.refusedUDP(tt.reason, float64(n+1))
			}
			silent(t, target)
			silent(t, c)
			if lines := w.log.lines("flow refused", "protocol=udp", "reason="+string(tt.reason)); len(lines) != refusalLines {
				t.Errorf("%d lines, want %d", len(lines), refusalLines)
			}
			if w.proxy.Flows() != 0 || w.proxy.datagrams.count() != 0 {
				t.Error("flows are left")
			}
		})
	}
}

// TestPortsOfTwoProtocols: an address and port of a service of UDP are none of TCP, even where the port of another
// service is open for all addresses, and the other way round.
func TestPortsOfTwoProtocols(t *testing.T) {
	w := newWorld(t, Settings{}, routedPool(),
		service("tcp", 7391, echo(t)), service("udp", 7391, udpEcho(t), ofUDP),
		endpoint("t", "tcp", "10.255.77.2"), endpoint("u", "udp", "10.255.77.3"), // which opens the port for all
		endpoint("t-lo", "tcp", "127.77.9.91"), endpoint("u-lo", "udp", "127.77.9.92"))
	stream := dial(t, "127.77.9.91:7391")
	io.WriteString(stream, "x")
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	c := udpDial(t, "127.77.9.92:7391")
	c.Write([]byte("x"))
	if said(t, c) != "x" {
		t.Error("another answer")
	}
	wrong, err := net.DialTimeout("tcp", "127.77.9.92:7391", patience)
	if err == nil { // it may be reset so soon that the dial is told
		defer wrong.Close()
		wrong.SetDeadline(time.Now().Add(patience))
		_, err = wrong.Read(make([]byte, 1))
	}
	if !isResetError(err) {
		t.Errorf("TCP to an endpoint of UDP: %v", err)
	}
	udpDial(t, "127.77.9.91:7391").Write([]byte("x"))
	w.refusedUDP(policy.NoPort, 1)
	if n := w.metric(t, "postern_proxy_refused_total", string(policy.NoPort)); n != 1 {
		t.Errorf("%v refused of TCP", n)
	}
}

// TestDatagramsHeader: each datagram has a header of version 2 in front, of UDP, which an independent reader reads.
func TestDatagramsHeader(t *testing.T) {
	for _, kind := range []link.ProxyProtocol{link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP} {
		t.Run(string(kind), func(t *testing.T) {
			target := udpTarget(t)
			w := udpWorld(t, udpAddr(target), Settings{}, func(v *link.Service) { v.ProxyProtocol = kind })
			c := udpDial(t, w.first())
			for _, payload := range []string{"one", "", "three"} {
				c.Write([]byte(payload))
				r := bytes.NewBufferString(said(t, target))
				if b := r.Bytes(); b[13] != 0x12 {
					t.Fatalf("family and transport %#x, want IPv4 and datagrams", b[13])
				}
				in := bufio.NewReader(r)
				h, err := proxyproto.Read(in)
				if err != nil {
					t.Fatal(err)
				}
				rest, _ := io.ReadAll(in)
				if string(rest) != payload || h.SourceAddr.String() != c.LocalAddr().String() || h.DestinationAddr.String() != w.first() || h.Command != proxyproto.PROXY {
					t.Errorf("%v to %v, %q behind", h.SourceAddr, h.DestinationAddr, rest)
				}
			}
		})
	}
	t.Run("of the client's own", func(t *testing.T) {
		target := udpTarget(t)
		w := udpWorld(t, udpAddr(target), Settings{})
		c := udpDial(t, w.first())
		c.Write([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x00evil"))
		c.Write([]byte("good"))
		if got := said(t, target); got != "good" {
			t.Errorf("%q", got)
		}
		eventually(t, "it is counted", func() bool { return w.metric(t, "postern_proxy_datagrams_dropped_total", "forbidden") == 1 })
	})
}

// TestDatagramsNAT: the target sees an address of the service's.
func TestDatagramsNAT(t *testing.T) {
	target := udpTarget(t)
	w := udpWorld(t, udpAddr(target), Settings{}, func(v *link.Service) {
		v.NAT = []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("127.0.0.78")}
	})
	udpDial(t, w.first()).Write([]byte("x"))
	if _, from, err := target.ReadFromUDPAddrPort(make([]byte, 1)); err != nil || from.Addr().String() != "127.0.0.78" {
		t.Errorf("%v, %v", from, err)
	}
}

// TestDatagramsFlood: P09 of datagrams, from as many addresses and ports as it takes: no more flows and descriptors than
// there may be, other endpoints and TCP served, a bounded number of lines, and all as before when it is over.
func TestDatagramsFlood(t *testing.T) {
	w := newWorld(t, Settings{MaxFlows: 80, MaxPerSource: 8},
		service("svc", 7001, udpEcho(t), ofUDP), service("other", 7002, udpEcho(t), ofUDP), service("tcp", 7003, echo(t)),
		endpoint("e", "svc", nextAddr(t)), endpoint("o", "other", nextAddr(t)), endpoint("t", "tcp", nextAddr(t)))
	all, ofEndpoint, ofSource := w.proxy.settings.Load().datagramShares()
	if all != 40 || ofEndpoint != 20 || ofSource != 8 {
		t.Fatalf("bounds %d, %d, %d", all, ofEndpoint, ofSource)
	}
	const one, many = 30, 200
	for i := range one + many {
		from := "127.5.0.1:0"
		if i >= one {
			from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 6, byte(i >> 8), byte(i)}), 0).String()
		}
		c := udpDial(t, w.first(), from)
		c.Write([]byte("flood"))
		if i < ofSource || i >= one && i < one+ofEndpoint-ofSource {
			said(t, c) // it is in use, and stays
			w.answeredUDP(min(i+1, ofSource) + max(0, i+1-one))
		}
		if i == one-1 {
			w.refusedUDP(policy.Limit, float64(one-ofSource))
		}
		if i%16 == 15 { // no faster than the listener takes them
			eventually(t, "it is taken", func() bool {
				return w.metric(t, "postern_proxy_refused_total", "udp", "limit")+float64(w.proxy.datagrams.count()) == float64(i+1)
			})
		}
	}
	w.refusedUDP(policy.Limit, float64(one+many-ofEndpoint))
	if n := w.proxy.datagrams.count(); n != ofEndpoint {
		t.Errorf("%d flows, want %d", n, ofEndpoint)
	}
	if n := len(w.log.lines("flow refused", "reason=limit")); n > many+refusalLines {
		t.Errorf("%d lines", n)
	}
	c := udpDial(t, w.now.Load().Endpoint("o").Address.String()+":7002")
	c.Write([]byte("x"))
	said(t, c)
	stream := dial(t, w.now.Load().Endpoint("t").Address.String()+":7003")
	io.WriteString(stream, "x")
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	w.apply(link.Suspend{Endpoint: "e", LinkID: w.connection("e").LinkID})
	eventually(t, "all is given back", func() bool { return w.proxy.datagrams.count() == 1 })
	d := &w.proxy.datagrams
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.endpoints) != 1 || len(d.sources) != 1 {
		t.Errorf("still counted: %v %v", d.endpoints, d.sources)
	}
}

// TestDatagramsOwn: the port that DNS has is none for endpoints, and one that only TCP of this node has is.
func TestDatagramsOwn(t *testing.T) {
	own := netip.MustParseAddrPort("[::]:7393")
	for _, tt := range []struct {
		name string
		udp  []netip.AddrPort
		open int
	}{{"DNS", []netip.AddrPort{own}, 0}, {"the API", nil, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Settings{Own: []netip.AddrPort{own}, OwnUDP: tt.udp}, service("svc", 7393, udpEcho(t), ofUDP), endpoint("e", "svc", "127.77.9.94"))
			if n := len(w.listening()); n != tt.open {
				t.Errorf("%d listeners", n)
			}
			if len(w.proxy.Listeners()) != 0 {
				t.Error("it is told of as one of TCP")
			}
		})
	}
}

// TestDatagramsPublished: nothing can be asked of a target of UDP, so that a service is published with its approval.
func TestDatagramsPublished(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, netip.MustParseAddrPort("127.0.0.1:9"), ofUDP))
	if w.proxy.Published("svc") {
		t.Error("published without a connection")
	}
	w.apply(endpoint("e", "svc", nextAddr(t)))
	if !w.proxy.Published("svc") || !w.proxy.Healthy("svc") {
		t.Error("not published")
	}
}
