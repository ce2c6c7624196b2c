package link

import (
	"net/netip"
	"testing"
	"time"
)

// noon is the time of the changes in tests.
var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func prefixes(list ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func network(id ID, prefix, pool string) Network {
	n := Network{ID: id, Prefixes: prefixes(prefix)}
	if pool != "" {
		n.Pools = prefixes(pool)
	}
	return n
}

// service is visible to all and approves the parties.
func service(id ID, name Name, approve ...Party) Service {
	s := Service{
		ID: id, Alias: string(id) + ".alias", Port: 1433, Pin: PinAddress, ProxyProtocol: ProxyAzure,
		Targets: []Target{{netip.MustParseAddrPort("10.20.0.4:1433")}},
		Visible: []Party{Anyone}, AutoApprove: approve,
	}
	if name != "" {
		s.Names = []ResourceName{{
			Public:  name + ".database.windows.net",
			Private: name + ".privatelink.database.windows.net",
			Zone:    "privatelink.database.windows.net",
		}}
	}
	return s
}

func endpoint(id, network, service ID) PutEndpoint {
	return PutEndpoint{Endpoint: Endpoint{ID: id, Network: network, Service: service}}
}

func at(id, network, service ID, addr string) PutEndpoint {
	c := endpoint(id, network, service)
	c.Endpoint.Address = netip.MustParseAddr(addr)
	return c
}

// must applies changes that have to succeed, and checks the result against the slow model.
func must(t testing.TB, s *Snapshot, changes ...Change) *Snapshot {
	t.Helper()
	next, _, err := s.Apply(noon, changes...)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, next)
	return next
}

// world is a network, an approving service, and an endpoint in the first to the second.
func world(t testing.TB) *Snapshot {
	t.Helper()
	return must(t, Empty(),
		PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")},
		PutNetwork{network("lab", "10.2.0.0/16", "10.201.0.0/24")},
		PutService{Service: service("sql", "contoso", "corp")},
		at("sql-corp", "corp", "sql", "10.200.0.5"),
	)
}
