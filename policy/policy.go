// Package policy decides whether a flow may reach a service, and says why.
//
// It is a function of a [link.Snapshot] and a [Request]; it does no I/O. It can be asked again for
// a live flow: the proxy does so for every new snapshot, and ends the flows that are no longer allowed.
package policy

import (
	"net/netip"
	"time"

	"github.com/postern-link/postern/link"
)

// Request is what is known of a flow.
type Request struct {
	Source netip.AddrPort // the client, unmapped
	Local  netip.AddrPort // the endpoint address and port that it connected to, unmapped
	// Protocol is what it came in. A service of another isn't at the port.
	Protocol link.Protocol
	// Judged: the first bytes were read, and Name is the server name that they carry.
	Judged bool
	Name   link.Name
	ECH    bool // the ClientHello was an encrypted one, and Name is the outer name
	// At is when it is asked, by a clock whose zone doesn't matter. Zero: not known, and what depends on it
	// is refused.
	At time.Time
	// View is how fresh the snapshot is. Zero: as fresh as can be.
	View Freshness
	// Live: the flow was let in before, and is asked about again. It then outlives a stale view, but
	// not an expired one.
	Live bool
}

// stale returns whether the view is too old to let the flow in, or to let it go on.
func (r *Request) stale(v *link.Service) bool {
	if r.Live {
		return r.View.Level(v.Strict) >= Expired
	}
	return r.View.Level(v.Strict) >= Stale
}

// Verdict is the answer to a request. The zero Verdict denies.
type Verdict struct {
	Allow bool
	// Unjudged: Allow holds only for reading the first bytes. The service is pinned to names and
	// the request isn't judged yet; nothing may be dialled before it is.
	Unjudged bool
	Reason   Reason // empty when allowed
	Rule     string // the rule that decided, such as "allow-list 10.1.0.0/16", "name contoso.example" or "policy office/hours"
	// Refused is "POLICY/RULE" of the operator's rule that refused, POLICY/default where none matched; ""
	// where the state did or nothing.
	Refused string
	// Observed are those that would have refused if they were enforced, in order, as "POLICY/RULE".
	Observed []string
	// What the flow was routed to, nil as far as it wasn't found.
	Endpoint *link.Endpoint
	Service  *link.Service
}

// deny returns the verdict with its reason and rule.
func (v Verdict) deny(reason Reason, rule string) Verdict {
	v.Allow, v.Unjudged, v.Reason, v.Rule = false, false, reason, rule
	return v
}

// Decide judges a request: route by local address and port, connection Approved and not suspended,
// view fresh enough, service in the egress list of the network, source in the allow-list, and, once the request is judged, name among those of a
// pinned service. Whatever it doesn't know it denies: no snapshot, no service, a pin of another version.
func Decide(s *link.Snapshot, r Request) Verdict {
	var v Verdict
	if s == nil {
		return v.deny(PolicyError, "no snapshot")
	}
	e := s.EndpointAt(r.Local.Addr())
	if e == nil {
		return v.deny(NoEndpoint, "no endpoint has the address")
	}
	v.Endpoint, v.Service = e, s.Service(e.Service)
	switch {
	case e.Connection.State != link.Approved:
		return v.deny(NotApproved, "connection is "+string(e.Connection.State))
	case e.Connection.Suspended != nil:
		return v.deny(Suspended, "connection is suspended")
	case v.Service == nil:
		return v.deny(NotApproved, "service is gone")
	case v.Service.Port != r.Local.Port():
		return v.deny(NoPort, "service has another port")
	case v.Service.Protocol != r.Protocol:
		return v.deny(NoPort, "service has the port in "+v.Service.Protocol.String())
	case r.stale(v.Service):
		return v.deny(PolicyError, r.View.String())
	}
	if rule, ok := s.MayHave(e, v.Service); !ok {
		return v.deny(PolicyDenied, "network "+string(e.Network)+": "+rule)
	}
	rule, ok := source(s, e, r.Source.Addr())
	if !ok {
		return v.deny(SourceDenied, rule)
	}
	return name(v, r, rule)
}

// source looks the client up in the endpoint's allow-list, or among the prefixes of its network
// where there is no list. It returns the rule that decided.
func source(s *link.Snapshot, e *link.Endpoint, client netip.Addr) (rule string, ok bool) {
	// A mapped address is in no IPv4 prefix, so that a caller who forgot to unmap is denied.
	if len(e.Allow) > 0 {
		for _, p := range e.Allow {
			if p.Contains(client) {
				return "allow-list " + p.String(), true
			}
		}
		return "not in the allow-list", false
	}
	n := s.Network(e.Network)
	if n == nil {
		return "network is gone", false
	}
	if !n.ByListener && s.NetworkOf(client) != n {
		return "not in network " + string(n.ID), false // or in another one within its prefixes
	}
	for _, p := range n.Prefixes {
		if p.Contains(client) {
			return "network " + string(n.ID) + " " + p.String(), true
		}
	}
	return "not in network " + string(n.ID), false
}

// name is the last step: what the pin of the service says about the judged name.
func name(v Verdict, r Request, rule string) Verdict {
	switch v.Service.Pin {
	case link.PinAddress:
		v.Allow, v.Rule = true, rule
		return v
	case link.PinTLS, link.PinPostgres, link.PinTDS, link.PinMySQL:
	default:
		return v.deny(PolicyError, "unknown pin "+string(v.Service.Pin))
	}
	if !r.Judged {
		v.Allow, v.Unjudged, v.Rule = true, true, rule
		return v
	}
	if r.ECH && !v.Service.ECHOuter {
		return v.deny(ECHDenied, "encrypted ClientHello; the service doesn't say ech allow")
	}
	if r.Name == "" {
		return v.deny(NoName, "no name")
	}
	for i := range v.Service.Names {
		if n := v.Service.Names[i].Public; n.Matches(r.Name) {
			v.Allow, v.Rule = true, "name "+string(n)
			return v
		}
	}
	return v.deny(NameDenied, "not a name of the service")
}
