package external

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// history makes states, each from the one before.
type history struct {
	t *testing.T
	*link.Snapshot
}

func (h *history) step(changes ...link.Change) *link.Snapshot {
	h.t.Helper()
	next, _, err := h.Apply(time.Unix(1_800_000_000, 0), changes...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Snapshot = next
	return next
}

// newHistory has two connections, a and b.
func newHistory(t *testing.T) *history {
	t.Helper()
	end := func(id link.ID, addr string) link.PutEndpoint {
		return link.PutEndpoint{Endpoint: link.Endpoint{ID: id, Network: "corp", Service: "db", Address: netip.MustParseAddr(addr)}}
	}
	h := &history{t, link.Empty()}
	h.step(
		link.PutNetwork{Network: link.Network{ID: "corp", Egress: []string{"*"},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Pools: []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}}},
		link.PutService{Service: link.Service{ID: "db", Alias: "alias", Port: 1433, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
			Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:1433")}}, Visible: []link.Party{"*"}, AutoApprove: []link.Party{"*"}}},
		end("a", "10.200.0.5"), end("b", "10.200.0.6"))
	return h
}

// TestDiffering: a program is told of all at first, then of what has changed for it, and of what has gone.
func TestDiffering(t *testing.T) {
	h := newHistory(t)
	first, step := h.Snapshot, h.step
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

// TestTold: a program is told of the newest alone, at most once a second; and of everything when it has been started
// again, without another change.
func TestTold(t *testing.T) {
	t.Parallel()
	h, c := newHistory(t), config("obeys")
	c.Flows, c.Changes = true, true
	w := start(t, c)
	told := regexp.MustCompile(`line="told: revision \d+ whole \w+ more false connections \d+\.`)
	last := func(says string) int {
		t.Helper()
		n := 0
		until(t, says, func() bool {
			all := told.FindAllString(w.log.String(), -1)
			n = len(all)
			return n > 0 && all[n-1] == `line="told: `+says+"."
		})
		return n
	}
	first := h.Snapshot
	w.Changed(first)
	last(fmt.Sprintf("revision %d whole true more false connections 2", first.Revision()))

	began, k := time.Now(), first.Endpoint("a").Connection
	for range 50 {
		w.Changed(h.step(link.Suspend{Endpoint: "a", LinkID: k.LinkID}))
		w.Changed(h.step(link.Resume{Endpoint: "a", LinkID: k.LinkID}))
	}
	w.Changed(h.step(link.Suspend{Endpoint: "a", LinkID: k.LinkID}))
	w.Changed(first) // that it has been told
	n := last(fmt.Sprintf("revision %d whole false more false connections 1", h.Revision()))
	if most := 2 + int(time.Since(began)/tellEvery); n > most {
		t.Errorf("told %d times in %s", n, time.Since(began))
	}

	w.ask(t, "crash")
	if last(fmt.Sprintf("revision %d whole true more false connections 2", h.Revision())) != n+1 {
		t.Errorf("told more than once after a restart:\n%s", w.log)
	}
}
