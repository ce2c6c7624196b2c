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
	"sync"
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
	e := &examination{asker: asker{timeout: 5 * time.Second}, resolvers: resolvers, pools: declaredPools(c), elsewhere: c.poolsElsewhere(), nodes: c.answersAt(), forwards: c.forwards()}
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
	elsewhere bool     // there may be pools that the Corefile says nothing of
	nodes     []string // where the node answers, as far as the Corefile says
	forwards  []forwarding
	resolvers []string

	dead   map[string]error // servers that don't answer
	items  []item
	mu     sync.Mutex // guards what follows
	signed []string   // zones for which validating resolvers need to be told
}

// one is what is said of one thing.
func one(what, about string, v verdict, format string, args ...any) []item {
	return []item{{what, about, v, fmt.Sprintf(format, args...)}}
}

// atOnce bounds what is asked at the same time.
const atOnce = 16

// each looks at all of a list at once, and adds what is said of each in the order of the list.
func (e *examination) each(n int, look func(i int) []item) {
	found := make([][]item, n)
	places := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			found[i] = look(i)
		})
	}
	wg.Wait()
	e.items = slices.Concat(append([][]item{e.items}, found...)...)
}

// run looks at everything: first which servers are there, so that one that isn't is waited for once. PrivateZone returns the private
// zone of a public name, "" where it has none.
func (e *examination) run(ctx context.Context, privateZone func(link.Name) link.Name) {
	type question struct{ name, zone string }
	var suffixes []string
	var asked []question
	ask := func(name, zone string) {
		if !slices.ContainsFunc(asked, func(q question) bool { return q.zone == zone }) {
			asked = append(asked, question{name, zone})
		}
	}
	for _, n := range e.names {
		suffixes = appendNew(suffixes, suffixOf(string(n)))
		ask(string(n), suffixOf(string(n)))
	}
	for _, n := range e.names {
		if z := privateZone(n); z != "" {
			ask(string(z), string(z))
		}
	}
	var upstreams []string
	for _, q := range asked {
		plain, _ := upstreamsOf(e.forwards, q.name)
		for _, at := range plain {
			upstreams = appendNew(upstreams, at)
		}
	}
	e.reach(ctx, upstreams)
	e.each(len(asked), func(i int) []item { return e.dnssec(ctx, asked[i].name, asked[i].zone) })
	e.each(len(suffixes), func(i int) []item { return e.loop(ctx, suffixes[i]) })
	e.each(len(e.resolvers)*len(e.names), func(i int) []item {
		return e.resolver(ctx, e.resolvers[i/len(e.names)], string(e.names[i%len(e.names)]))
	})
}

// reach finds out which servers answer anything at all, and names those of forward that don't.
func (e *examination) reach(ctx context.Context, upstreams []string) {
	var all []string
	for _, at := range slices.Concat(upstreams, e.nodes, e.resolvers) {
		all = appendNew(all, at)
	}
	errs := make([]error, len(all))
	e.each(len(all), func(i int) []item {
		if errs[i] = e.reached(ctx, all[i]); errs[i] != nil && slices.Contains(upstreams, all[i]) {
			return one("forward", strings.TrimSuffix(all[i], ":53"), verdictFault, "it doesn't answer: names that only it is asked for fail; take it out of forward, or see why")
		}
		return nil
	})
	e.dead = make(map[string]error)
	for i, at := range all {
		if errs[i] != nil {
			e.dead[at] = errs[i]
		}
	}
}

// live returns the servers that answer, or why there is none.
func (e *examination) live(all []string, none error) (live []string, why error) {
	why = none
	for _, at := range all {
		if err := e.dead[at]; err != nil {
			why = err
			continue
		}
		live = append(live, at)
	}
	return live, why
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

// dnssec says how validating resolvers see a name, and notes the zone that they have to be told of. It asks whom the node would ask.
func (e *examination) dnssec(ctx context.Context, name, zone string) []item {
	plain, others := upstreamsOf(e.forwards, name)
	why := errors.New("no forward of the Corefile takes it")
	if len(others) > 0 {
		why = fmt.Errorf("the node asks %s for it, and this command speaks plain DNS alone", strings.Join(others, " "))
	}
	plain, why = e.live(plain, why)
	for _, at := range plain {
		var s security
		if s, why = e.securityOf(ctx, at, name); why != nil {
			continue
		}
		switch s.kind {
		case signedParent:
			e.mustTell(zone)
			return one("dnssec", zone, verdictNote, "signed parent: %s is signed and says what is in it; validating resolvers reject private answers unless they are told, see below", s.at)
		case insecureDelegation:
			if s.at != zone+"." {
				return one("dnssec", zone, verdictOK, "unsigned parent: %s is delegated without a signature; validating resolvers accept private answers", s.at)
			}
			return one("dnssec", zone, verdictOK, "insecure delegation: %s is delegated without a signature; validating resolvers accept private answers", s.at)
		}
		return one("dnssec", zone, verdictOK, "unsigned parent: %s isn't signed; validating resolvers accept private answers", s.at)
	}
	if errors.Is(why, errRefused) {
		return one("dnssec", zone, verdictFault, "%v", why)
	}
	return one("dnssec", zone, verdictUnknown, "%v", why)
}

// mustTell notes a zone that validating resolvers have to be told of.
func (e *examination) mustTell(zone string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.signed = appendNew(e.signed, zone)
}

// loop asks the node for a name that nobody has, which it passes on unless it knows of a loop.
func (e *examination) loop(ctx context.Context, suffix string) []item {
	nodes, why := e.live(e.nodes, errors.New("the Corefile has no server block with privatelink for plain DNS"))
	for _, at := range nodes {
		var m *dns.Msg
		for range 3 { // the first query has the node look
			var b [8]byte
			rand.Read(b[:]) // never fails
			if m, why = e.ask(ctx, at, "postern-doctor-"+hex.EncodeToString(b[:])+"."+suffix, dns.TypeA, false); why != nil || m.Rcode == dns.RcodeRefused {
				break
			}
			if saysLoop(m) {
				return one("loop", suffix, verdictFault, "the servers of forward send names below it back to the node at %s: have them ask others for it", at)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second / 2):
			}
		}
		switch {
		case why != nil:
			continue
		case m.Rcode == dns.RcodeRefused:
			return one("loop", suffix, verdictUnknown, "the node at %s refuses this machine's names below it%s: miss of privatelink, linkexit or acl say so, or a server of forward; "+
				"run this where a client is that may ask", at, edeText(m))
		case m.Rcode == dns.RcodeServerFailure:
			return one("loop", suffix, verdictFault, "the node at %s fails for names below it%s: whom forward asks doesn't answer it", at, edeText(m))
		}
		return one("loop", suffix, verdictOK, "what the node at %s passes on doesn't come back", at)
	}
	return one("loop", suffix, verdictUnknown, "%v", why)
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
		"and a rule of their own that forwards these zones here, even where everything is: BIND and Knot Resolver answer from denials of the parent that they keep.\n"+
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
