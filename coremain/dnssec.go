package coremain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/plugin/privatelink"
)

// asker asks DNS servers.
type asker struct {
	timeout time.Duration // of one question
}

// byTCP begins the address of a server that is asked by TCP alone, as force_tcp in forward has it.
const byTCP = "tcp://"

// exchange asks a server by UDP, or by TCP where its address begins so.
func exchange(ctx context.Context, r *dns.Msg, server string, timeout time.Duration) (*dns.Msg, error) {
	c := &dns.Client{Timeout: timeout}
	server, tcp := strings.CutPrefix(server, byTCP)
	if tcp {
		c.Net = "tcp"
	}
	m, _, err := c.ExchangeContext(ctx, r, server)
	return m, err
}

// reachTime is how long a server is waited for that may not be there, for each of two questions.
const reachTime = 1500 * time.Millisecond

// reached returns an error unless a server answers, whatever it answers. The first question is one of the class CHAOS, which servers
// answer or refuse without asking others; where somebody between drops it, the second is for the root.
func (a asker) reached(ctx context.Context, server string) (err error) {
	chaos, root := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT), new(dns.Msg).SetQuestion(".", dns.TypeNS)
	chaos.Question[0].Qclass, chaos.RecursionDesired = dns.ClassCHAOS, false
	for _, r := range []*dns.Msg{chaos, root} {
		if _, err = exchange(ctx, r, server, min(a.timeout, reachTime)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s doesn't answer: %w", server, err)
}

// letIn is what to do where a server refuses.
const letIn = "allow it there: access-control in Unbound, allow-query and allow-recursion in BIND"

// edeText returns the extended error of an answer, for a sentence, "" where there is none.
func edeText(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				text := dns.ExtendedErrorCodeToString[e.InfoCode]
				if e.ExtraText != "" {
					text += ": " + e.ExtraText
				}
				return " (" + text + ")"
			}
		}
	}
	return ""
}

// ask asks a server for a name, with RD and DO, and with CD where no validation is wanted. What is truncated is asked
// for again by TCP.
func (a asker) ask(ctx context.Context, server, name string, rrtype uint16, unchecked bool) (*dns.Msg, error) {
	r := new(dns.Msg).SetQuestion(dns.Fqdn(name), rrtype).SetEdns0(1232, true)
	r.CheckingDisabled = unchecked
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	m, err := exchange(ctx, r, server, a.timeout)
	if err == nil && m.Truncated && !strings.HasPrefix(server, byTCP) {
		m, err = exchange(ctx, r, byTCP+server, a.timeout)
	}
	if err != nil {
		return nil, fmt.Errorf("%s doesn't answer: %w", server, err)
	}
	return m, nil
}

// saysLoop reports whether an answer says in the node's own words that its name leads back to the node. The code alone (RFC 8914)
// may be of a server of forward.
func saysLoop(m *dns.Msg) bool {
	opt := m.IsEdns0()
	return opt != nil && slices.ContainsFunc(opt.Option, func(o dns.EDNS0) bool {
		e, ok := o.(*dns.EDNS0_EDE)
		return ok && e.InfoCode == dns.ExtendedErrorCodeNoReachableAuthority && e.ExtraText == privatelink.LeadsBack
	})
}

// securityKind is how a validating resolver sees a name that public DNS has or not.
type securityKind string

const (
	unsignedParent     securityKind = "unsigned parent"     // no signature is expected
	insecureDelegation securityKind = "insecure delegation" // a signed zone says that none is expected below
	signedParent       securityKind = "signed parent"       // each answer must be signed
)

// security is a kind with the zone or the name that decides.
type security struct {
	kind securityKind
	at   string
}

// errStripped: nothing can be told by way of a server that leaves the signatures out.
var errStripped = errors.New("gives no signatures with the root zone: it can't tell what is signed")

// errRefused: the server doesn't answer who asks.
var errRefused = errors.New("refuses this machine (REFUSED), and so perhaps the node: " + letIn + ", or have forward ask another")

// securityOf asks a server for the chain of trust from the root to a name (RFC 4035 section 5): at each label for DS, and
// for the signed proof where there is none. It verifies no signature; it tells how things are meant.
func (a asker) securityOf(ctx context.Context, server, name string) (security, error) {
	root, err := a.ask(ctx, server, ".", dns.TypeSOA, true)
	if err != nil {
		return security{}, err
	}
	if root.Rcode == dns.RcodeRefused {
		return security{}, fmt.Errorf("%s %w", server, errRefused)
	}
	if !signed(root.Answer) {
		return security{}, fmt.Errorf("%s %w", server, errStripped)
	}
	secure := "." // the deepest zone that is known to be signed
	labels := dns.SplitDomainName(dns.Fqdn(name))
	for i := len(labels) - 1; i >= 0; i-- {
		child := strings.Join(labels[i:], ".") + "."
		m, err := a.ask(ctx, server, child, dns.TypeDS, true)
		if err != nil {
			return security{}, err
		}
		if m.Rcode == dns.RcodeRefused {
			return security{}, fmt.Errorf("%s %w", server, errRefused)
		}
		if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
			return security{}, fmt.Errorf("%s says %s for DS of %s", server, dns.RcodeToString[m.Rcode], child)
		}
		if slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS }) {
			secure = child
			continue
		}
		if !signed(m.Ns) && !signed(m.Answer) {
			return security{unsignedParent, parentOf(m, child)}, nil
		}
		if delegated(m.Ns, child) {
			return security{insecureDelegation, child}, nil
		}
		if m.Rcode == dns.RcodeNameError {
			break // the signed zone says that nothing is there
		}
	}
	return security{signedParent, secure}, nil
}

// signed reports whether a section has a signature.
func signed(rrs []dns.RR) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
}

// parentOf returns the zone that says that a name has no DS.
func parentOf(m *dns.Msg, child string) string {
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			return rr.Header().Name
		}
	}
	return child
}

// delegated reports whether the proof that a name has no DS says that it is delegated: NS without SOA at the name itself,
// or it is in a span that may hold such delegations (opt-out, RFC 5155 section 6).
func delegated(rrs []dns.RR, child string) bool {
	cut := func(types []uint16) bool {
		return slices.Contains(types, dns.TypeNS) && !slices.Contains(types, dns.TypeSOA) && !slices.Contains(types, dns.TypeDS)
	}
	for _, rr := range rrs {
		switch rr := rr.(type) {
		case *dns.NSEC:
			if strings.EqualFold(rr.Hdr.Name, child) && cut(rr.TypeBitMap) {
				return true
			}
		case *dns.NSEC3:
			if rr.Match(child) && cut(rr.TypeBitMap) || rr.Flags&1 != 0 && rr.Cover(child) {
				return true
			}
		}
	}
	return false
}
