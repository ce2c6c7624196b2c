package coremain

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coredns/coredns/plugin/pkg/parse"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
)

// doctorUsage is what the command takes.
const doctorUsage = "[-conf FILE] [-resolver ADDR]... [NAME...]"

// doctor looks at the DNS around a node, from this machine: whether the public zones of services are signed, whether
// the servers of forward ask the node again, and whether resolvers in front of it forward these zones. It changes
// nothing. The exit code is 1 where something has to be done or couldn't be told.
func doctor(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("postern doctor", flag.ContinueOnError)
	f.SetOutput(stderr)
	conf := f.String("conf", "", "Corefile of the node (default \"Corefile\")")
	var resolvers []string
	f.Func("resolver", "address of a resolver in front of the node, `ADDR` or ADDR:PORT; may be given several times", func(s string) error {
		at, err := parse.HostPort(s, transport.Port)
		resolvers = append(resolvers, at)
		return err
	})
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := Setup(); err != nil {
		return fail(stderr, err)
	}
	l, err := newLoader(*conf)
	if err != nil {
		return fail(stderr, err)
	}
	_, c, err := l.read()
	if err != nil {
		fmt.Fprintln(stderr, explain(err, c).Lint())
		return 1
	}
	e := &examination{asker: asker{timeout: 10 * time.Second}, resolvers: resolvers, pools: declaredPools(c), nodes: c.answersAt(), upstreams: c.upstreams()}
	for _, arg := range f.Args() {
		n, err := link.ParseName(arg)
		if err != nil {
			fmt.Fprintf(stderr, "postern doctor: name %q: %v\n", arg, err)
			return 2
		}
		e.names = append(e.names, n)
	}
	if len(e.names) == 0 {
		e.names = c.serviceNames()
	}
	if len(e.names) == 0 {
		fmt.Fprintln(stderr, "postern doctor: the Corefile declares no service with names: give the names of one")
		return 2
	}
	e.run(context.Background(), c.privateZone)
	return e.print(stdout)
}

// verdict is what one item of an examination says.
type verdict string

const (
	verdictOK      verdict = "ok"
	verdictNote    verdict = "note" // of use to who sets up resolvers
	verdictFault   verdict = "FAULT"
	verdictUnknown verdict = "unknown"
)

// item is one line.
type item struct {
	what, about string
	verdict     verdict
	detail      string
}

// examination is one run of doctor.
type examination struct {
	asker
	names     []link.Name // of services; a pattern stands with a label in place of its "*"
	pools     []pool
	nodes     []string // where the node answers, as far as the Corefile says
	upstreams []string
	resolvers []string

	items  []item
	signed []string // zones for which validating resolvers need to be told
}

func (e *examination) add(what, about string, v verdict, format string, args ...any) {
	e.items = append(e.items, item{what, about, v, fmt.Sprintf(format, args...)})
}

// run looks at everything. PrivateZone returns the private zone of a public name, "" where it has none.
func (e *examination) run(ctx context.Context, privateZone func(link.Name) link.Name) {
	var suffixes, zones []string
	for _, n := range e.names {
		suffixes = appendNew(suffixes, suffixOf(string(n)))
		if z := privateZone(n); z != "" {
			zones = appendNew(zones, string(z))
		}
	}
	for _, n := range e.names {
		e.dnssec(ctx, string(n), suffixOf(string(n)))
	}
	for _, z := range zones {
		e.dnssec(ctx, z, z)
	}
	for _, suffix := range suffixes {
		e.loop(ctx, suffix)
	}
	for _, at := range e.resolvers {
		for _, n := range e.names {
			e.resolver(ctx, at, string(n))
		}
	}
}

func appendNew(all []string, s string) []string {
	if slices.Contains(all, s) {
		return all
	}
	return append(all, s)
}

// suffixOf returns what a name is below: what resolvers forward.
func suffixOf(name string) string {
	if _, suffix, ok := strings.Cut(name, "."); ok && strings.Contains(suffix, ".") {
		return suffix
	}
	return name
}

// dnssec says how validating resolvers see a name, and notes the zone that they have to be told of.
func (e *examination) dnssec(ctx context.Context, name, zone string) {
	if slices.ContainsFunc(e.items, func(i item) bool { return i.what == "dnssec" && i.about == zone }) {
		return
	}
	why := errors.New("the Corefile has no forward")
	for _, at := range e.upstreams {
		var s security
		if s, why = e.securityOf(ctx, at, name); why != nil {
			continue
		}
		switch s.kind {
		case signedParent:
			e.signed = append(e.signed, zone)
			e.add("dnssec", zone, verdictNote, "signed parent: %s is signed and says what is in it; validating resolvers reject private answers unless they are told, see below", s.at)
		case insecureDelegation:
			if s.at != zone+"." {
				e.add("dnssec", zone, verdictOK, "unsigned parent: %s is delegated without a signature; validating resolvers accept private answers", s.at)
				return
			}
			e.add("dnssec", zone, verdictOK, "insecure delegation: %s is delegated without a signature; validating resolvers accept private answers", s.at)
		case unsignedParent:
			e.add("dnssec", zone, verdictOK, "unsigned parent: %s isn't signed; validating resolvers accept private answers", s.at)
		}
		return
	}
	e.add("dnssec", zone, verdictUnknown, "%v", why)
}

// loop asks the node for a name that nobody has, which it passes on unless it knows of a loop.
func (e *examination) loop(ctx context.Context, suffix string) {
	why := errors.New("the Corefile has no server block with privatelink for plain DNS")
	for _, at := range e.nodes {
		for range 3 { // the first query has the node look
			var b [8]byte
			rand.Read(b[:]) // never fails
			var m *dns.Msg
			if m, why = e.ask(ctx, at, "postern-doctor-"+hex.EncodeToString(b[:])+"."+suffix, dns.TypeA, false); why != nil {
				break
			}
			if edeCode(m) == int(dns.ExtendedErrorCodeNoReachableAuthority) {
				e.add("loop", suffix, verdictFault, "the servers of forward send names below it back to the node at %s: have them ask others for it", at)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second / 2):
			}
		}
		if why == nil {
			e.add("loop", suffix, verdictOK, "what the node at %s passes on doesn't come back", at)
			return
		}
	}
	e.add("loop", suffix, verdictUnknown, "%v", why)
}

// resolver looks whether a resolver in front of the node has its answers for a name.
func (e *examination) resolver(ctx context.Context, at, name string) {
	what := "resolver " + strings.TrimSuffix(at, ":53")
	m, err := e.ask(ctx, at, name, dns.TypeA, false)
	switch {
	case err != nil:
		e.add(what, name, verdictUnknown, "%v", err)
	case m.Rcode == dns.RcodeServerFailure:
		m, err := e.ask(ctx, at, name, dns.TypeA, true)
		if err == nil && m.Rcode == dns.RcodeSuccess || slices.Contains(e.signed, suffixOf(name)) { // BIND remembers the failure
			e.signed = appendNew(e.signed, suffixOf(name))
			e.add(what, name, verdictFault, "it forwards the name and rejects the answer, because it validates: tell it, see below")
			return
		}
		e.add(what, name, verdictFault, "SERVFAIL, also without validation: it doesn't reach the node, or the node fails")
	case m.Rcode != dns.RcodeSuccess:
		e.add(what, name, verdictFault, "%s: it asks others and not the node, or has no endpoint in the network of its address", dns.RcodeToString[m.Rcode])
	default:
		private, others := e.split(m)
		switch {
		case len(private) > 0 && len(others) == 0:
			e.add(what, name, verdictOK, "forwards to the node: %s", strings.Join(private, " "))
		case len(private) > 0:
			e.add(what, name, verdictFault, "%s beside the addresses of endpoints: another source is merged in", strings.Join(others, " "))
		case len(others) > 0:
			e.add(what, name, verdictFault, "%s is in no pool of the Corefile: it asks others and not the node, or its address is in no network with an endpoint", strings.Join(others, " "))
		default:
			e.add(what, name, verdictFault, "no address: a filter against rebinding may drop private ones (private-domain in Unbound), or the endpoint has IPv6 alone")
		}
	}
}

// split returns the addresses of an answer that are in a pool, and the others.
func (e *examination) split(m *dns.Msg) (private, others []string) {
	for _, rr := range m.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(a.A)
		if slices.ContainsFunc(e.pools, func(p pool) bool { return p.prefix.Contains(addr.Unmap()) }) {
			private = append(private, addr.Unmap().String())
		} else {
			others = append(others, addr.Unmap().String())
		}
	}
	return private, others
}

// print writes the items and what to tell resolvers, and returns the exit code.
func (e *examination) print(w io.Writer) (code int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tABOUT\tVERDICT\tDETAIL")
	for _, i := range e.items {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", i.what, i.about, i.verdict, printable(i.detail))
		if i.verdict == verdictFault || i.verdict == verdictUnknown {
			code = 1
		}
	}
	t.Flush()
	zones := topmost(e.signed)
	if len(zones) == 0 {
		return code
	}
	list := func(format, sep string) string {
		var s []string
		for _, z := range zones {
			s = append(s, fmt.Sprintf(format, z))
		}
		return strings.Join(s, sep)
	}
	fmt.Fprintf(w, "\nValidating resolvers in front of the node need a negative trust anchor (RFC 7646):\n\n"+
		"  Unbound, server:        %s\n  BIND, options:          validate-except { %s };\n  PowerDNS Recursor, Lua: %s\n  Knot Resolver:          trust_anchors.set_insecure({ %s })\n\n"+
		"Or sign these zones here with \"dnssec\" and give resolvers the key as trust anchor (docs/resolvers.md).\n",
		list("domain-insecure: %q", "\n                          "), list("%q;", " "), list("addNTA(%q)", " "), list("'%s'", ", "))
	return code
}

// topmost returns the zones that are in no other one.
func topmost(zones []string) (top []string) {
	for _, z := range zones {
		if !slices.ContainsFunc(zones, func(o string) bool { return strings.HasSuffix(z, "."+o) }) {
			top = appendNew(top, z)
		}
	}
	return top
}

// serviceNames returns the names of the services that a Corefile declares.
func (c *corefile) serviceNames() (names []link.Name) {
	for _, words := range allUses(c, "linkservice") {
		for _, t := range property(words, "names") {
			text := t.Text
			if rest, ok := strings.CutPrefix(text, "*"); ok {
				text = "postern-doctor" + rest
			}
			if n, err := link.ParseName(text); err == nil && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// privateZone returns the private zone of a public name: one that the Corefile adds, or one of the table.
func (c *corefile) privateZone(public link.Name) link.Name {
	for _, words := range allUses(c, "privatelink") {
		args := property(words, "zone")
		for i := 0; i+1 < len(args); i += 2 {
			if strings.HasSuffix(string(public), "."+strings.ToLower(strings.TrimSuffix(args[i+1].Text, "."))) {
				n, _ := link.ParseName(args[i].Text) // "" where it is none
				return n
			}
		}
	}
	return link.DefaultZones().Resource(public).Zone
}

// upstreams returns the servers that forward asks by plain DNS.
func (c *corefile) upstreams() (all []string) {
	for _, words := range allUses(c, "forward") {
		args := arguments(words)
		for _, t := range args[min(1, len(args)):] {
			if conf, err := dns.ClientConfigFromFile(t.Text); err == nil {
				for _, s := range conf.Servers {
					all = appendNew(all, net.JoinHostPort(s, conf.Port))
				}
				continue
			}
			kind, host := parse.Transport(t.Text)
			if at, err := parse.HostPort(host, transport.Port); err == nil && kind == transport.DNS {
				all = appendNew(all, at)
			}
		}
	}
	return all
}

// answersAt returns where the node answers by plain DNS, with a loopback address for all of them.
func (c *corefile) answersAt() (all []string) {
	for _, b := range c.blocks {
		if len(b.Tokens["privatelink"]) == 0 {
			continue
		}
		for _, key := range b.Keys {
			zones, err := keyZones(key)
			if err != nil || len(zones) == 0 || !strings.HasPrefix(zones[0], transport.DNS+"://") {
				continue
			}
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(zones[0], transport.DNS+"://"))
			for _, host := range boundTo(b) {
				if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
					host = "127.0.0.1"
				} else if err != nil {
					continue // an interface
				}
				all = appendNew(all, net.JoinHostPort(host, port))
			}
		}
	}
	return all
}
