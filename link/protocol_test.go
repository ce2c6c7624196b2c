package link

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProtocol(t *testing.T) {
	world := world(t)
	for _, tt := range []struct {
		name string
		edit func(*Service)
		want string // in the error; "": allowed
	}{
		{"udp", func(*Service) {}, ""},
		{"tcp", func(v *Service) { v.Protocol = TCP }, ""},
		{"another", func(v *Service) { v.Protocol = "sctp" }, "tcp and udp are allowed"},
		{"pinned to a name", func(v *Service) { v.Pin = PinTLS }, "use pin address"},
		{"PROXY v1", func(v *Service) { v.ProxyProtocol = ProxyV1 }, "use v2"},
		{"PROXY v2", func(v *Service) { v.ProxyProtocol = ProxyV2 }, ""},
		{"idle for long", func(v *Service) { v.IdleTimeout = MaxUDPIdleTimeout + time.Second }, "5s to 10m0s are allowed for udp"},
		{"idle for the least", func(v *Service) { v.IdleTimeout = MinUDPIdleTimeout }, ""},
		{"probed", func(v *Service) { v.Probe = Probe{Kind: ProbeTLS} }, "can't be probed"},
		{"idle for the least, of tcp", func(v *Service) { v.Protocol, v.IdleTimeout = TCP, MinUDPIdleTimeout }, "allowed for tcp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := service("s", "db")
			v.Protocol, v.Pin = UDP, PinAddress
			tt.edit(&v)
			_, _, err := world.Apply(noon, PutService{Service: v})
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestPortsOfProtocols: a port of TCP and the same of UDP have nothing to do with each other, and a service that
// goes from one to the other takes its endpoints along.
func TestPortsOfProtocols(t *testing.T) {
	of := func(id ID, p Protocol) PutService {
		v := service(id, "")
		v.Port, v.Protocol, v.AutoApprove = 443, p, []Party{Anyone}
		return PutService{Service: v}
	}
	corp := network("corp", "10.1.0.0/16", "10.200.0.0/24")
	corp.Pools = append(corp.Pools, netip.MustParsePrefix("127.0.9.0/24"))
	s := must(t, Empty(), PutNetwork{corp}, of("web", TCP), of("quic", UDP),
		at("web", "corp", "web", "10.200.0.4"), at("web-lo", "corp", "web", "127.0.9.4"),
		at("quic", "corp", "quic", "10.200.0.5"), at("quic-lo", "corp", "quic", "127.0.9.5"))
	has := func(p Protocol, routed []uint16, loopback ...string) {
		t.Helper()
		if got := slices.Collect(s.Ports(p, false)); !slices.Equal(got, routed) {
			t.Errorf("ports of %v %v, want %v", p, got, routed)
		}
		var got []string
		for at := range s.Loopback(p) {
			got = append(got, at.String())
		}
		if !slices.Equal(got, loopback) {
			t.Errorf("loopback of %v %v, want %v", p, got, loopback)
		}
	}
	has(TCP, []uint16{443}, "127.0.9.4:443")
	has(UDP, []uint16{443}, "127.0.9.5:443")
	s = must(t, s, of("quic", TCP))
	has(TCP, []uint16{443}, "127.0.9.4:443", "127.0.9.5:443")
	has(UDP, nil)
}

// TestProtocolStored: a service of a version before UDP is one of TCP, and writes nothing new.
func TestProtocolStored(t *testing.T) {
	old := `{"id":"s","alias":"s.x","port":443,"targets":[{"addr":"10.1.1.1:443"}],"pin":"address","proxyProtocol":"off"}`
	var v Service
	if err := json.Unmarshal([]byte(old), &v); err != nil || v.Protocol != TCP || v.Protocol.String() != "tcp" || v.Idle() != DefaultIdleTimeout {
		t.Fatalf("%v, protocol %v, idle %v", err, v.Protocol, v.Idle())
	}
	if b, err := json.Marshal(&v); err != nil || string(b) != old {
		t.Errorf("%s, %v; want %s", b, err, old)
	}
	v.Protocol = UDP
	if b, _ := json.Marshal(&v); !strings.Contains(string(b), `"protocol":"udp"`) || v.Idle() != DefaultUDPIdleTimeout {
		t.Errorf("%s, idle %v", b, v.Idle())
	}
}
