package privatelink

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
)

// TestFastpathSites: clients at two sites of a network have answers of their own in the table, which end when a site's targets do and
// with the turn of the addresses.
func TestFastpathSites(t *testing.T) {
	t.Parallel()
	const parisian, lyonnais = corpLoop, "127.1.1.9"
	srv := startFast(t, loops(t))
	b := packed(t, "twice.database.windows.net A", nil)
	same := func(what, from string, addresses int) []byte {
		t.Helper()
		want := srv.raw(t, from, srv.slow, b)
		if got := srv.raw(t, from, srv.quick, b); !bytes.Equal(got, want) {
			t.Errorf("%s, from %s:\ngot\n%x\nwant\n%x", what, from, got, want)
		}
		if got := srv.known(t, from, b); !bytes.Equal(got, want) {
			t.Errorf("%s, from the table to %s:\ngot\n%x\nwant\n%x", what, from, got, want)
		}
		m := new(dns.Msg)
		if err := m.Unpack(want); err != nil || len(addressList(m.Answer)) != addresses {
			t.Errorf("%s, from %s: %v %v", what, from, err, m)
		}
		return want
	}
	change := func(f func()) {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		f()
	}
	same("all are up", parisian, 1)
	first := same("all are up", lyonnais, 2)
	srv.turn.Add(1)
	if bytes.Equal(same("another turn", lyonnais, 2), first) {
		t.Error("the order is the same in the next turn")
	}
	same("another turn", parisian, 1)
	change(func() { srv.down["twice@paris"] = true })
	same("Paris is down", parisian, 2)
	same("Paris is down", lyonnais, 2)
	change(func() { srv.down["twice@lyon"] = true })
	same("all are down (D23)", parisian, 1)
	change(func() { clear(srv.down) })
	same("all are up again", parisian, 1)
}
