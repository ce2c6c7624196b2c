package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// zoneServer is a DNS server on loopback with TXT records that a test writes.
type zoneServer struct {
	mu      sync.Mutex
	txt     map[string][]string // by owner name with its dot
	broken  map[string]bool     // SERVFAIL
	queries int
}

func (z *zoneServer) asked() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.queries
}

func (z *zoneServer) set(txt map[string][]string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.txt = txt
}

func (z *zoneServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(q.Question[0].Name)
	z.queries++
	m := new(dns.Msg).SetReply(q)
	for _, s := range z.txt[name] {
		m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{s}})
	}
	switch {
	case z.broken[name]:
		m.Rcode = dns.RcodeServerFailure
	case len(m.Answer) == 0:
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

// resolver starts the server and returns the standard library's resolver of it.
func (z *zoneServer) resolver(t *testing.T) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, Handler: z, NotifyStartedFunc: func() { close(started) }}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// TestNames is A09: which names a service may have.
func TestNames(t *testing.T) {
	const guid = "aaaaaaaa-0000-0000-0000-00000000c001"
	z := &zoneServer{
		txt: map[string][]string{
			"_postern.given.example.":         {"postern-tenant=" + guid}, // the operator gave it to fabrikam
			"_postern.over.example.":          {"postern-tenant=" + guid},
			"_postern.proven.example.":        {"v=spf1 -all", "Postern-Tenant=" + strings.ToUpper(guid)},
			"_postern.deep.parent.example.":   {"postern-tenant=" + guid},
			"_postern.theirs.example.":        {"postern-tenant=bbbbbbbb-0000-0000-0000-00000000f001"},
			"_postern.example.":               {"postern-tenant=" + guid}, // one label is no domain
			"_postern.prefix.example.":        {"postern-tenant=" + guid + "0"},
			"_postern.half.example.":          {"postern-tenant="},
			"_postern.below.unproven.example": {"postern-tenant=" + guid},
		},
		broken: map[string]bool{"_postern.broken.example.": true},
	}
	resolver := z.resolver(t)
	tests := map[string]struct {
		sub, name string
		err       error
		says      string
	}{
		"own domain":                     {subC, "contoso.example", nil, ""},
		"below the own domain":           {subC, "a.b.contoso.example", nil, ""},
		"wildcard of the own domain":     {subC, "*.contoso.example", nil, ""},
		"looks like the own domain":      {subC, "evilcontoso.example", ErrUnproven, "_postern.evilcontoso.example"},
		"proven":                         {subC, "proven.example", nil, ""},
		"below what is proven":           {subC, "x.y.proven.example", nil, ""},
		"wildcard below what is proven":  {subC, "*.proven.example", nil, ""},
		"a parent is proven":             {subC, "a.deep.parent.example", nil, ""},
		"above what is proven":           {subC, "parent.example", ErrUnproven, "postern-tenant=" + guid},
		"proven by another":              {subC, "theirs.example", ErrUnproven, ""},
		"a longer GUID":                  {subC, "prefix.example", ErrUnproven, ""},
		"no GUID":                        {subC, "half.example", ErrUnproven, ""},
		"proven by a top-level domain":   {subC, "nobody.example", ErrUnproven, ""},
		"server fails":                   {subC, "broken.example", ErrUnproven, "server misbehaving"},
		"given to another":               {subC, "given.example", ErrUnproven, "make a TXT record at _postern.given.example"},
		"below what another was given":   {subC, "*.www.given.example", ErrUnproven, "make a TXT record at _postern.www.given.example"},
		"pattern over what was given":    {subC, "*.over.example", ErrUnproven, "make a TXT record at _postern.over.example"},
		"beside what was given":          {subC, "b.over.example", nil, ""},
		"given to it":                    {subF, "given.example", nil, ""},
		"given to another, the operator": {subOp, "given.example", nil, ""},
		"one label":                      {subC, "intranet", link.ErrInvalid, "two labels"},
		"one label of the operator":      {subOp, "intranet", link.ErrInvalid, "two labels"},
		"bare wildcard":                  {subC, "*", link.ErrInvalid, ""},
		"wildcard of a top-level domain": {subC, "*.example", link.ErrInvalid, ""},
		"wildcard in the middle":         {subC, "a.*.contoso.example", link.ErrInvalid, ""},
		"an address":                     {subC, "192.0.2.1", link.ErrInvalid, ""},
		"capitals":                       {subC, "DB.contoso.example", link.ErrInvalid, "canonical"},
		"inside a privatelink zone":      {subOp, "db.privatelink.database.windows.net", link.ErrInvalid, "privatelink zone"},
		"any name, for the operator":     {subOp, "whatever.example", nil, ""},
		"held by another tenant":         {subOp, "held.contoso.example", link.ErrConflict, ""},
		"above what another holds":       {subOp, "contoso.example", link.ErrConflict, ""},
		"wildcard over what others hold": {subOp, "*.contoso.example", link.ErrConflict, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) {
				ts := ourTenants()
				ts[2].Domains = []link.Name{"given.example", "a.over.example"}
				c.Tenants, c.Resolver = ts, resolver
			})
			held := service(subC2 + "/rg/held")
			held.Names = []link.ResourceName{{Public: "held.contoso.example"}}
			w.ok(w.putServiceAs(op(Owner, subC2), held))
			v := service(link.ID(tt.sub + "/rg/svc"))
			if tt.sub == subF { // what one tenant's service points at is no target of another's
				v.Targets = []link.Target{{Addr: netip.MustParseAddrPort("203.0.113.10:443")}}
			}
			v.Names = []link.ResourceName{{Public: link.Name(tt.name)}}
			before := w.state()
			_, err := w.putServiceAs(op(Provider, tt.sub), v)
			if tt.err == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			w.refused(before, err, tt.err)
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "c2/rg/held") {
				t.Errorf("it says %q, want %q", err, tt.says)
			}
		})
	}
}

// TestNamesKeepTheirForm: the private half is filled in once, and a name once proven isn't looked up again.
func TestNamesKeepTheirForm(t *testing.T) {
	z := &zoneServer{txt: map[string][]string{"_postern.sql.database.windows.net.": {"postern-tenant=aaaaaaaa-0000-0000-0000-00000000c001"}}}
	w := newWorld(t, func(c *Config) { c.Resolver = z.resolver(t) })
	v := service(svcC)
	v.Names = []link.ResourceName{{Public: "sql.database.windows.net"}}
	w.ok(w.putServiceAs(op(Provider, subC), v))
	got := w.state().Service(svcC).Names[0]
	if got.Private != "sql.privatelink.database.windows.net" || got.Zone != "privatelink.database.windows.net" {
		t.Errorf("%+v", got)
	}
	asked := z.asked()
	if asked == 0 {
		t.Fatal("nothing was looked up")
	}
	z.set(nil) // the proof was shown once
	before := w.state().Revision()
	again := New(w.config)
	zones, err := link.DefaultZones().With(link.ZoneRow{Private: "privatelink.other.example", Public: "database.windows.net"})
	if err != nil {
		t.Fatal(err)
	}
	again.config.Zones = zones
	r, err := again.EditService(t.Context(), op(Provider, subC), svcC, func(*link.Snapshot, *link.Service) (*link.Service, error) { return &v, nil })
	if err != nil || r.Changed || w.state().Revision() != before || z.asked() != asked {
		t.Errorf("the same again: %v, %v, %d queries", r.Changed, err, z.asked()-asked)
	}
}

// TestStrangersCauseNoLookUps: only who may publish makes the node ask DNS.
func TestStrangersCauseNoLookUps(t *testing.T) {
	z := &zoneServer{}
	w := newWorld(t, func(c *Config) { c.Resolver = z.resolver(t) })
	v := service(svcC)
	v.Names = []link.ResourceName{{Public: "a.example.org"}}
	for _, o := range []Op{op(Owner, subF), op(Reader, subC), op(Consumer, subC)} {
		if _, err := w.putServiceAs(o, v); err == nil {
			t.Error("written")
		}
	}
	for range 60 { // more than a service may have
		v.Names = append(v.Names, v.Names[0])
	}
	if _, err := w.putServiceAs(op(Owner, subC), v); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
	if n := z.asked(); n > 0 {
		t.Errorf("asked %d times", n)
	}
}

// silent is a resolver that answers when it is told to stop.
type silent struct{}

func (silent) LookupTXT(ctx context.Context, name string) ([]string, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: ctx.Err().Error(), Name: name, IsTimeout: true}
}

// TestProofsEnd: however many names and however silent DNS, the look-ups take 5 s.
func TestProofsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Resolver: silent{}, Tenants: ourTenants(), Snapshot: func() *link.Snapshot { return nil }})
		var names []link.Name
		for i := range 50 {
			names = append(names, link.Name(strings.Repeat("a.", 1+i)+"example.org"))
		}
		begun := time.Now()
		p := c.prove(t.Context(), ourTenants()[1], names)
		if took := time.Since(begun); took != proofWait {
			t.Errorf("it took %s", took)
		}
		for _, n := range names {
			if !errors.Is(p[n], ErrUnproven) || !strings.Contains(p[n].Error(), "_postern."+string(n)) {
				t.Errorf("%s: %v", n, p[n])
			}
		}
	})
}

// TestProofsOfOneWrite: a write with more names to prove than are looked up is refused before any look-up.
func TestProofsOfOneWrite(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Resolver = nobodyAsks{t} })
	v := service(svcC)
	m := ManifestService{Name: "svc", Port: 443, Targets: []string{"203.0.113.9:443"}}
	for i := range proofNames + 1 {
		v.Names = append(v.Names, link.ResourceName{Public: link.Name(fmt.Sprintf("n%d.example.org", i))})
		m.Names = append(m.Names, string(v.Names[i].Public))
	}
	_, err := w.putServiceAs(op(Owner, subC), v)
	w.refused(w.state(), err, ErrLimit)
	_, err = w.Apply(t.Context(), op(Owner, subC), Manifest{Subscription: subC, Group: "rg", Services: []ManifestService{m}})
	w.refused(w.state(), err, ErrLimit)
}

// nobodyAsks is a resolver that nobody may ask.
type nobodyAsks struct{ t *testing.T }

func (r nobodyAsks) LookupTXT(_ context.Context, name string) ([]string, error) {
	r.t.Errorf("%s is looked up", name)
	return nil, nil
}
