package coremain

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// poolsElsewhere reports whether endpoints may have addresses that the Corefile says nothing of: the API makes networks too, and other nodes
// declare theirs in a state that is shared.
func (c *corefile) poolsElsewhere() bool {
	if len(allUses(c, "linkapi")) > 0 {
		return true
	}
	for _, words := range allUses(c, "linkstore") {
		if args := arguments(words); len(args) > 0 && args[0].Text == "etcd" {
			return true
		}
	}
	return false
}

// resolver looks whether a resolver in front of the node has its answers for a name.
func (e *examination) resolver(ctx context.Context, at, name string) []item {
	say := func(v verdict, format string, args ...any) []item {
		return one("resolver "+strings.TrimSuffix(at, ":53"), name, v, format, args...)
	}
	if err := e.dead[at]; err != nil {
		return say(verdictUnknown, "%v", err)
	}
	m, err := e.ask(ctx, at, name, dns.TypeA, false)
	switch {
	case err != nil:
		return say(verdictUnknown, "%v", err)
	case m.Rcode == dns.RcodeServerFailure:
		return e.failing(ctx, at, name, say)
	case m.Rcode == dns.RcodeRefused:
		return say(verdictFault, "REFUSED%s: it doesn't answer this machine (%s), or the node refuses it", edeText(m), letIn)
	case m.Rcode != dns.RcodeSuccess:
		return say(verdictFault, "%s: it asks others and not the node, answers from a denial that it keeps (RFC 8198, docs/resolvers.md), or has no endpoint in the network of its address", dns.RcodeToString[m.Rcode])
	}
	private, others := e.split(m)
	if len(others) == 0 && len(private) > 0 {
		return say(verdictOK, "forwards to the node: %s", strings.Join(private, " "))
	}
	if len(others) > 0 && e.elsewhere && !e.public(ctx, name, others) {
		return say(verdictUnknown, "%s: in no pool of the Corefile (endpoints of linknetwork), but there may be others, of the API or of other nodes: \"postern explain\" says "+
			"whose it is", strings.Join(others, " "))
	}
	switch {
	case len(private) > 0:
		return say(verdictFault, "%s beside the addresses of endpoints: another source is merged in", strings.Join(others, " "))
	case len(others) > 0 && len(e.pools) == 0:
		return say(verdictUnknown, "%s: the Corefile declares no pool (endpoints of linknetwork), so that nothing here tells whether it is an endpoint's", strings.Join(others, " "))
	case len(others) > 0:
		return say(verdictFault, "%s is in no pool of the Corefile: it asks others and not the node, or its address is in no network with an endpoint", strings.Join(others, " "))
	}
	return say(verdictFault, "no address: a filter against rebinding may drop private ones (private-domain in Unbound), or the endpoint has IPv6 alone")
}

// public reports whether one of the addresses is what the node would be told by others for a name: then it is no endpoint's.
func (e *examination) public(ctx context.Context, name string, addrs []string) bool {
	plain, _ := upstreamsOf(e.forwards, name)
	plain, _ = e.live(plain, nil)
	for _, at := range plain {
		if m, err := e.ask(ctx, at, name, dns.TypeA, false); err == nil {
			_, theirs := e.split(m)
			return slices.ContainsFunc(theirs, func(a string) bool { return slices.Contains(addrs, a) })
		}
	}
	return false
}

// failing says why a resolver fails for a name.
func (e *examination) failing(ctx context.Context, at, name string, say func(v verdict, format string, args ...any) []item) []item {
	m, err := e.ask(ctx, at, name, dns.TypeA, true)
	e.mu.Lock()
	told := slices.Contains(e.signed, suffixOf(name)) // BIND remembers the failure
	e.mu.Unlock()
	if err == nil && m.Rcode == dns.RcodeSuccess || told {
		e.mustTell(suffixOf(name))
		return say(verdictFault, "it forwards the name and rejects the answer, because it validates: tell it, see below")
	}
	return say(verdictFault, "SERVFAIL, also without validation: it doesn't reach the node, or the node fails")
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
