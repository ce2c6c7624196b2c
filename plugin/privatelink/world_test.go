package privatelink

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
)

// noon is the time of all changes.
var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// The clients of tests: of the networks corp, lab and bare, and of none.
const (
	corp     = "10.1.0.9"
	corp6    = "fd00:1::9"
	lab      = "10.2.0.9"
	bare     = "10.3.0.9"
	stranger = "192.0.2.9"
)

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// service has the names, which everyone may connect to.
func service(id link.ID, names ...link.Name) link.Service {
	s := link.Service{
		ID: id, Alias: string(id) + ".alias", Port: 443, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
		Targets: []link.Target{{Addr: netip.MustParseAddrPort("10.20.0.4:443")}},
		Visible: []link.Party{link.Anyone}, AutoApprove: []link.Party{link.Anyone},
	}
	for _, n := range names {
		s.Names = append(s.Names, link.DefaultZones().Resource(n))
	}
	return s
}

// byHand is a service whose connections stay Pending.
func byHand(id link.ID, name link.Name) link.PutService {
	s := service(id, name)
	s.AutoApprove = nil
	return link.PutService{Service: s}
}

// to is an endpoint of the service, which is named like it.
func to(service, network link.ID, address string) link.PutEndpoint {
	return link.PutEndpoint{Endpoint: link.Endpoint{
		ID: service + "-" + link.ID(strings.NewReplacer(":", ".", "..", ".").Replace(address)), Network: network, Service: service, Address: netip.MustParseAddr(address),
	}}
}

func apply(t testing.TB, s *link.Snapshot, changes ...link.Change) *link.Snapshot {
	t.Helper()
	next, _, err := s.Apply(noon, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func linkID(s *link.Snapshot, endpoint link.ID) link.LinkID {
	return s.Endpoint(endpoint).Connection.LinkID
}

// world is the snapshot of most tests.
func world(t testing.TB) *link.Snapshot {
	t.Helper()
	fallback := service("fallback", "fallback.database.windows.net")
	fallback.FallbackPublic = true
	s := apply(t, link.Empty(),
		link.PutNetwork{Network: link.Network{ID: "corp", Prefixes: prefixes("10.1.0.0/16", "fd00:1::/64"), Pools: prefixes("10.200.0.0/24", "fd00:200::/64")}},
		link.PutNetwork{Network: link.Network{ID: "lab", Prefixes: prefixes("10.2.0.0/16", "10.1.99.0/24"), Pools: prefixes("10.201.0.0/24")}},
		link.PutNetwork{Network: link.Network{ID: "bare", Prefixes: prefixes("10.3.0.0/16")}},
		link.PutNetwork{Network: link.Network{ID: "hidden", Prefixes: prefixes("10.1.0.0/16"), Pools: prefixes("10.202.0.0/24"), ByListener: true}},
		link.PutService{Service: service("sql", "contoso.database.windows.net")},
		to("sql", "corp", "10.200.0.5"), to("sql", "lab", "10.201.0.5"), to("sql", "hidden", "10.202.0.5"),
		link.PutService{Service: service("vault", "kv.vault.azure.net")},
		to("vault", "corp", "10.200.0.6"), to("vault", "corp", "10.200.0.66"), to("vault", "corp", "fd00:200::6"),
		link.PutService{Service: service("plain", "db.example.com")}, to("plain", "corp", "10.200.0.7"),
		link.PutService{Service: service("apps", "*.azurewebsites.net", "*.apps.example.com")}, to("apps", "corp", "10.200.0.8"),
		link.PutService{Service: service("blob", "acct.blob.core.windows.net")}, to("blob", "corp", "fd00:200::9"),
		link.PutService{Service: service("bus", "a.b.servicebus.windows.net")}, to("bus", "corp", "10.200.0.10"),
		byHand("pending", "pending.database.windows.net"), to("pending", "corp", "10.200.0.11"),
		byHand("rejected", "rejected.database.windows.net"), to("rejected", "corp", "10.200.0.12"),
		link.PutService{Service: service("suspended", "suspended.database.windows.net")}, to("suspended", "corp", "10.200.0.13"),
		link.PutService{Service: service("removed", "removed.database.windows.net")}, to("removed", "corp", "10.200.0.14"),
		link.PutService{Service: service("unproven", "unproven.database.windows.net")}, to("unproven", "corp", "10.200.0.15"),
		link.PutService{Service: service("down", "down.database.windows.net")}, to("down", "corp", "10.200.0.16"),
		link.PutService{Service: fallback}, to("fallback", "corp", "10.200.0.17"),
	)
	return apply(t, s,
		link.Decide{Endpoint: "rejected-10.200.0.12", LinkID: linkID(s, "rejected-10.200.0.12"), State: link.Rejected},
		link.Suspend{Endpoint: "suspended-10.200.0.13", LinkID: linkID(s, "suspended-10.200.0.13")},
		link.Disconnect{Endpoint: "removed-10.200.0.14", LinkID: linkID(s, "removed-10.200.0.14")},
	)
}

// upstream is the next plugin: everything that it says is public.
type upstream struct {
	mu    sync.Mutex // probes of Upstream come at once
	asked []string
	// reply makes the answer; nil is an A record of 203.0.113.1 for whatever is asked.
	reply func(r *dns.Msg) *dns.Msg
}

func (u *upstream) Name() string { return "upstream" }

func (u *upstream) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	u.mu.Lock()
	u.asked = append(u.asked, r.Question[0].Name+" "+dns.TypeToString[r.Question[0].Qtype])
	u.mu.Unlock() // before the answer, which may lead here again
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	if u.reply != nil {
		m = u.reply(r)
	} else {
		m.Answer = records(r.Question[0].Name + " 300 IN A 203.0.113.1")
	}
	return m.Rcode, w.WriteMsg(m)
}

// taken returns what it was asked since the last time.
func (u *upstream) taken() (asked []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked, u.asked = u.asked, nil
	return asked
}

// records parses one record a line.
func records(lines ...string) (rrs []dns.RR) {
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			panic(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// server is a handler under test with what is around it.
type server struct {
	*Privatelink
	snapshot       *link.Snapshot
	unproven, down map[link.ID]bool
	stale          [2]string // what Stale answers: for services that don't demand strict freshness, for those that do
	up             *upstream
}

func newServer(t testing.TB, s *link.Snapshot) *server {
	t.Helper()
	srv := &server{
		snapshot: s, up: new(upstream),
		unproven: map[link.ID]bool{"unproven": true},
		down:     map[link.ID]bool{"down": true, "fallback": true},
	}
	srv.Privatelink = &Privatelink{
		Next:      srv.up,
		Snapshot:  func() *link.Snapshot { return srv.snapshot },
		Published: func(id link.ID) bool { return !srv.unproven[id] },
		Healthy:   func(id link.ID) bool { return !srv.down[id] && !srv.unproven[id] },
		HealthyAt: func(id link.ID, site string) bool {
			if site == "" {
				return srv.Healthy(id)
			}
			return !srv.down[id+"@"+link.ID(site)] && srv.Healthy(id)
		},
		Stale: func(strict bool) string {
			if strict {
				return srv.stale[1]
			}
			return srv.stale[0]
		},
		Zones:    link.DefaultZones(),
		Forwards: true,
		settings: defaults(),
		stats:    newCounters(prometheus.NewRegistry()),
	}
	return srv
}

// writer takes the answers to one client.
type writer struct {
	test.ResponseWriter
	got []*dns.Msg
}

func (w *writer) WriteMsg(m *dns.Msg) error {
	w.got = append(w.got, m)
	return nil
}

// question is "NAME TYPE" as a query that wants recursion.
func question(ask string) *dns.Msg {
	name, rrtype, _ := strings.Cut(ask, " ")
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[rrtype])
	m.Id = 4711
	return m
}

// ask sends a query as the core does and returns the answer as the client reads it, nil if none was
// written, and the code that the handler returned.
func (s *server) ask(t testing.TB, client string, r *dns.Msg) (*dns.Msg, int) {
	t.Helper()
	w := &writer{ResponseWriter: test.ResponseWriter{RemoteIP: client}}
	code, err := s.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.got) > 1 {
		t.Fatalf("%d answers to one query", len(w.got))
	}
	if len(w.got) == 0 {
		return nil, code
	}
	packed, err := w.got[0].Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	return m, code
}

// text is a section, one record a line, with single blanks.
func text(rrs []dns.RR) string {
	var lines []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			lines = append(lines, strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	return strings.Join(lines, "\n")
}

// check compares a section with the records expected, in their order.
func check(t testing.TB, section string, got []dns.RR, want ...string) {
	t.Helper()
	if want := text(records(want...)); text(got) != want {
		t.Errorf("%s:\ngot\n%s\nwant\n%s", section, text(got), want)
	}
}

// edeOf returns the extended error of an answer, -1 where there is none.
func edeOf(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				return int(ede.InfoCode)
			}
		}
	}
	return -1
}
