package external

import (
	"net/netip"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// TestDiffering: a program is told of all at first, then of what has changed for it, and of what has gone.
func TestDiffering(t *testing.T) {
	s := link.Empty()
	step := func(changes ...link.Change) *link.Snapshot {
		t.Helper()
		next, _, err := s.Apply(time.Unix(1_800_000_000, 0), changes...)
		if err != nil {
			t.Fatal(err)
		}
		s = next
		return next
	}
	end := func(id link.ID, addr string) link.PutEndpoint {
		return link.PutEndpoint{Endpoint: link.Endpoint{ID: id, Network: "corp", Service: "db", Address: netip.MustParseAddr(addr)}}
	}
	first := step(
		link.PutNetwork{Network: link.Network{ID: "corp", Egress: []string{"*"},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Pools: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}}},
		link.PutService{Service: link.Service{ID: "db", Alias: "alias", Port: 1433, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
			Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:1433")}}, Visible: []link.Party{"*"}, AutoApprove: []link.Party{"*"}}},
		end("a", "10.200.0.5"), end("b", "10.200.0.6"))
	told := func(old, now *link.Snapshot) map[string]*policypb.Connection {
		all := map[string]*policypb.Connection{}
		for k := range differing(old, now) {
			all[k.GetEndpoint().GetId()] = k
		}
		return all
	}
	if all := told(nil, first); len(all) != 2 || all["a"].GetState() != "Approved" || all["a"].GetEndpoint().GetLinkId() == 0 {
		t.Errorf("at first: %v", all)
	}
	k := first.Endpoint("a").Connection
	second := step(link.Suspend{Endpoint: "a", LinkID: k.LinkID}, link.DeleteEndpoint{ID: "b"})
	if all := told(first, second); len(all) != 2 || !all["a"].GetSuspended() || all["a"].GetGone() || !all["b"].GetGone() {
		t.Errorf("afterwards: %v", all)
	}
	if all := told(second, second); len(all) != 0 {
		t.Errorf("nothing has changed: %v", all)
	}
}
