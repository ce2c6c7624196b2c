package linkexit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/privatelink"
)

// world is a handler with what is around it.
type world struct {
	*Linkexit
	snapshot *link.Snapshot
	asked    []*dns.Msg // what went to the next plugin
	reply    func(r *dns.Msg) *dns.Msg
	lines    *lines
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld has the settings for network corp and for all others.
func newWorld(t testing.TB, corp, others func(*settings)) *world {
	t.Helper()
	w := &world{lines: new(lines), snapshot: snapshot(t)}
	w.Linkexit = &Linkexit{
		rules: map[link.ID]*rule{}, stats: newCounters(prometheus.NewRegistry()), start: time.Now(), Forwards: true,
		log: &journal{to: slog.New(slog.NewTextHandler(w.lines, nil))},
	}
	t.Cleanup(w.log.flush)
	w.Next = plugin.HandlerFunc(func(_ context.Context, out dns.ResponseWriter, r *dns.Msg) (int, error) {
		w.asked = append(w.asked, r)
		m := new(dns.Msg).SetReply(r)
		if w.reply != nil {
			m = w.reply(r)
		}
		return m.Rcode, out.WriteMsg(m)
	})
	if corp != nil {
		w.rules["corp"] = ruleOf(corp)
	}
	if others != nil {
		w.other = ruleOf(others)
	}
	return w
}

func ruleOf(set func(*settings)) *rule {
	s := defaults()
	set(&s)
	return newRule(s)
}

func snapshot(t testing.TB) *link.Snapshot {
	t.Helper()
	s, _, err := link.Empty().Apply(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
		link.PutNetwork{Network: link.Network{
			ID: "corp", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Pools: []netip.Prefix{netip.MustParsePrefix("203.0.113.128/25")},
		}},
		link.PutNetwork{Network: link.Network{ID: "lab", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func linkID(s string) link.ID { return link.ID(s) }

func open(s *settings)   { s.mode = modeOpen }
func closes(s *settings) { s.mode = modeClosed }

// writer takes the answers.
type writer struct {
	test.ResponseWriter
	got []*dns.Msg
}

func (w *writer) WriteMsg(m *dns.Msg) error {
	w.got = append(w.got, m)
	return nil
}

// ask sends a query from a client of a network and returns the answer.
func (w *world) ask(t testing.TB, network link.ID, client string, r *dns.Msg) *dns.Msg {
	t.Helper()
	out := new(writer)
	c := privatelink.Client{Network: network, Addr: netip.MustParseAddr(client), Snapshot: w.snapshot}
	if _, err := w.serve(context.Background(), c, out, r); err != nil {
		t.Fatal(err)
	}
	if len(out.got) != 1 {
		t.Fatalf("%d answers", len(out.got))
	}
	if _, err := out.got[0].Pack(); err != nil {
		t.Fatal(err)
	}
	return out.got[0]
}

// question is "NAME TYPE".
func question(ask string) *dns.Msg {
	name, rrtype, _ := strings.Cut(ask, " ")
	t, ok := dns.StringToType[rrtype]
	if !ok {
		if _, err := fmt.Sscanf(rrtype, "TYPE%d", &t); err != nil {
			panic(err)
		}
	}
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), t)
}

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

// TestVerdicts: what is passed on, and what a client is answered that isn't.
func TestVerdicts(t *testing.T) {
	list := func(s *settings) {
		s.mode, s.list = modeList, written(t, "www.example.com\n*.wild.example\n.both.example\n")
	}
	class := func(ask string, class uint16) *dns.Msg {
		r := question(ask)
		r.Question[0].Qclass = class
		return r
	}
	code := func(ask string, opcode int) *dns.Msg {
		r := question(ask)
		r.Opcode = opcode
		return r
	}
	unwanted := func(ask string) *dns.Msg {
		r := question(ask)
		r.RecursionDesired = false
		return r
	}
	for _, tt := range []struct {
		name   string
		rule   func(*settings)
		r      *dns.Msg
		reason reason
		rcode  int
		ede    int
	}{
		{"closed", closes, question("www.example.com A"), closed, dns.RcodeRefused, 15},
		{"closed, privatelink zone", closes, question("other.privatelink.database.windows.net A"), closed, dns.RcodeRefused, 15},
		{"closed, DS", closes, question("privatelink.database.windows.net DS"), closed, dns.RcodeRefused, 15},
		{"closed, root", closes, question(". NS"), closed, dns.RcodeRefused, 15},
		{"closed, without recursion", closes, unwanted("www.example.com A"), closed, dns.RcodeRefused, 15},
		{"listed", list, question("WWW.example.com AAAA"), passed, 0, -1},
		{"listed as a suffix", list, question("a.b.wild.example TXT"), passed, 0, -1},
		{"listed with its suffix", list, question("both.example A"), passed, 0, -1},
		{"not listed", list, question("example.com A"), unlisted, dns.RcodeRefused, 15},
		{"below a listed name", list, question("data.www.example.com A"), unlisted, dns.RcodeRefused, 15},
		{"the suffix itself", list, question("wild.example A"), unlisted, dns.RcodeRefused, 15},
		{"beside a suffix", list, question("awild.example A"), unlisted, dns.RcodeRefused, 15},
		{"a dot within a label", list, question(`evil\.wild.example A`), unlisted, dns.RcodeRefused, 15},
		{"a dot within a label by its number", list, question(`evil\046wild.example A`), unlisted, dns.RcodeRefused, 15},
		{"listed, type refused all the same", list, question("www.example.com NULL"), rrtype, dns.RcodeRefused, 18},
		{"open", open, question("www.example.com A"), passed, 0, -1},
		{"open, without recursion", open, unwanted("www.example.com A"), passed, 0, -1},
		{"D18 NULL", open, question("x.example.com NULL"), rrtype, dns.RcodeRefused, 18},
		{"private use", open, question("x.example.com TYPE65280"), rrtype, dns.RcodeRefused, 18},
		{"private use, last", open, question("x.example.com TYPE65534"), rrtype, dns.RcodeRefused, 18},
		{"KEY", open, question("x.example.com KEY"), rrtype, dns.RcodeRefused, 18},
		{"ANY", open, question("x.example.com ANY"), rrtype, dns.RcodeRefused, 18},
		{"TXT", open, question("x.example.com TXT"), passed, 0, -1},
		{"D10 AXFR", open, question("example.com AXFR"), transfer, dns.RcodeRefused, 18},
		{"D10 IXFR", open, question("example.com IXFR"), transfer, dns.RcodeRefused, 18},
		{"class CH", open, class("version.bind TXT", dns.ClassCHAOS), class_, dns.RcodeRefused, 18},
		{"class ANY", open, class("www.example.com A", dns.ClassANY), class_, dns.RcodeRefused, 18},
		{"D05 NOTIFY", open, code("example.com SOA", dns.OpcodeNotify), opcode, dns.RcodeNotImplemented, -1},
		{"D05 UPDATE", open, code("example.com SOA", dns.OpcodeUpdate), opcode, dns.RcodeNotImplemented, -1},
		{"length", func(s *settings) { open(s); s.length = 15 }, question("www.example.com A"), passed, 0, -1},
		{"too long", func(s *settings) { open(s); s.length = 14 }, question("www.example.com A"), length, dns.RcodeNameError, 15},
		{"length counts escaped bytes once", func(s *settings) { open(s); s.length = 13 }, question(`\001.example.com A`), passed, 0, -1},
		{"TXT listed", func(s *settings) { open(s); s.refuse = new(types); s.refuse.add(dns.TypeTXT) }, question("x.example.com TXT"), rrtype, dns.RcodeRefused, 18},
		{"types of one's own replace the default", func(s *settings) { open(s); s.refuse = new(types) }, question("x.example.com NULL"), passed, 0, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.rule, nil)
			for _, edns := range []bool{false, true} {
				r := tt.r.Copy()
				want := -1
				if edns {
					r.SetEdns0(1232, false)
					want = tt.ede
				}
				w.asked = nil
				m := w.ask(t, "corp", "10.1.0.9", r)
				if m.Rcode != tt.rcode || edeOf(m) != want || m.Id != r.Id || m.Authoritative || !edns && m.IsEdns0() != nil {
					t.Errorf("EDNS %v: %v", edns, m)
				}
				if (len(w.asked) == 1) != (tt.reason == passed) {
					t.Errorf("%d queries went on", len(w.asked))
				}
				if tt.reason != passed && m.RecursionAvailable != r.RecursionDesired {
					t.Errorf("RA %v for RD %v", m.RecursionAvailable, r.RecursionDesired)
				}
			}
		})
	}
}

const class_ = class

// TestMostSpecificWins: the rule of the client's network, else that for all; without one nothing is judged.
func TestMostSpecificWins(t *testing.T) {
	w := newWorld(t, closes, open)
	if m := w.ask(t, "corp", "10.1.0.9", question("www.example.com A")); m.Rcode != dns.RcodeRefused {
		t.Errorf("its own rule: %v", m)
	}
	for _, network := range []link.ID{"lab", ""} {
		if m := w.ask(t, network, "192.0.2.9", question("www.example.com A")); m.Rcode != dns.RcodeSuccess {
			t.Errorf("network %q: %v", network, m)
		}
	}
	w = newWorld(t, closes, nil)
	if m := w.ask(t, "lab", "10.2.0.9", question("x.example.com NULL")); m.Rcode != dns.RcodeSuccess {
		t.Errorf("not judged: %v", m)
	}
}

// TestExplain: what is explained is what becomes of a query.
func TestExplain(t *testing.T) {
	list := func(s *settings) { s.mode, s.list = modeList, written(t, ".example.com\n") }
	long := func(s *settings) { open(s); s.length, s.rate = 20, [2]int{1000, 1000} }
	for _, tt := range []struct {
		name   string
		corp   func(*settings)
		asked  link.Name
		result string
		by     string
	}{
		{"closed", closes, "www.example.com", "refused: closed", "mode closed"},
		{"on the list", list, "www.example.com", "passed", "mode allow-list"},
		{"not on the list", list, "www.example.net", "refused: not_listed", "mode allow-list"},
		{"open", open, "www.example.com", "passed", "mode open"},
		{"too long", long, "a-long-label.www.example.com", "refused: length", "mode open"},
		{"limited", long, "www.example.com", "passed, within its limits", "mode open"},
		{"not judged", nil, "www.example.com", "passed", "no linkexit is for the network"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.corp, nil)
			result, by := w.Explain("corp", tt.asked)
			if result != tt.result || !strings.HasSuffix(by, tt.by) {
				t.Errorf("%s by %s", result, by)
			}
			w.ask(t, "corp", "10.1.0.9", question(string(tt.asked)+" A"))
			if passes := strings.HasPrefix(result, "passed"); passes != (len(w.asked) > 0) {
				t.Errorf("it is %s, and %d queries went on", result, len(w.asked))
			}
		})
	}
}

// TestFailsClosed: without privatelink nobody knows who asks, and nothing goes on.
func TestFailsClosed(t *testing.T) {
	w := newWorld(t, nil, open)
	code, err := w.ServeDNS(context.Background(), new(writer), question("www.example.com A"))
	if code != dns.RcodeServerFailure || err != nil || len(w.asked) != 0 {
		t.Errorf("code %d, %v, %d went on", code, err, len(w.asked))
	}
}

// TestNothingBesideTheQuestion: EDNS options and records that a client sends along don't go on; its message stays
// as it is, for those who answer it.
func TestNothingBesideTheQuestion(t *testing.T) {
	w := newWorld(t, nil, open)
	r := question("www.example.com A")
	r.SetEdns0(1232, true)
	w.ask(t, "corp", "10.1.0.9", r)
	if w.asked[0] != r {
		t.Error("a plain query was copied")
	}
	r.IsEdns0().Option = []dns.EDNS0{
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("secret")}, &dns.EDNS0_PADDING{Padding: []byte("secret")},
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: []byte{'s', 'e', 'c', 'r'}}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "736563726574"},
	}
	txt, _ := dns.NewRR("secret.example. 0 IN TXT secret")
	r.Answer, r.Ns, r.Extra = []dns.RR{txt}, []dns.RR{txt}, append(r.Extra, txt)
	before := r.String()
	w.ask(t, "corp", "10.1.0.9", r)
	got := w.asked[1]
	packed, err := got.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(packed, []byte("secr")) || len(got.Extra) != 1 || !got.IsEdns0().Do() || got.Question[0] != r.Question[0] || got.Id != r.Id || !got.RecursionDesired {
		t.Errorf("went on: %v", got)
	}
	if r.String() != before {
		t.Errorf("the client's message was changed: %v", r)
	}
}

// TestMetrics: labels are bounded and go with the network.
func TestMetrics(t *testing.T) {
	w := newWorld(t, closes, open)
	count := func() (n int) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(w.stats.queries, w.stats.dropped)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "network" && l.GetValue() == "lab" {
						n++
					}
				}
			}
		}
		return n
	}
	for i := range 50 {
		w.ask(t, "lab", "10.2.0.9", question(fmt.Sprintf("n%d.example.com A", i)))
	}
	if n := count(); n != int(reasons)+1 {
		t.Errorf("%d series of a network", n)
	}
	s, _, err := w.snapshot.Apply(time.Now(), link.DeleteNetwork{ID: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	w.snapshot = s
	w.ask(t, "corp", "10.1.0.9", question("www.example.com A"))
	if n := count(); n != 0 {
		t.Errorf("%d series of a network that is gone", n)
	}
}
