package policy

import (
	"net/netip"

	"github.com/postern-link/postern/link"
)

// Standing is a live flow, as far as it takes to say whether it may go on: who it is, what it was let in for,
// and where it has come to.
type Standing struct {
	Request             // of now: View and At are those of the question
	Service link.ID     // that it was let in for
	LinkID  link.LinkID // of the connection that it was let in for
	// Waits: a PROXY header is read, and nothing is decided yet. Of the others only Local and LinkID count then.
	Waits bool
	// Unread: the service was pinned to names when it was let in, and the first bytes aren't judged yet.
	Unread bool
	Target netip.AddrPort // that is dialled or connected; zero: none yet
	// By are the names that Target was found by; none: it was written down.
	By []link.NamePort
}

// Admit is Decide on what the node knows of itself: where it listens itself is no endpoint for its data plane.
func (p *Policy) Admit(s *link.Snapshot, r Request, g link.Ground) Verdict {
	for _, own := range g.Listeners {
		if own.Addr() == r.Local.Addr() {
			return Verdict{Reason: NoEndpoint, Rule: "this node listens on the address itself, for " + own.String()}
		}
	}
	return p.Decide(s, r)
}

// Stands judges a live flow again. It may go on where it would be let in today, but for a view that has become
// stale meanwhile, and as what it is: of the same service and connection, its first bytes judged where the service
// is pinned to names now, and to a target that is still one and that the service may still send to. A target that was found
// by a name is one as long as the service has the name, wherever the name leads by now. It is what
// the data plane ends flows by and what a plan says of them; p is nil where only the state is asked.
func (p *Policy) Stands(s *link.Snapshot, f Standing, g link.Ground) (Verdict, bool) {
	if f.Waits {
		return Verdict{}, f.LinkID == 0 || f.LinkID == Awaited(s, f.Local)
	}
	r := f.Request
	r.Live = true
	v := p.Admit(s, r, g)
	switch {
	case !v.Allow, v.Service.ID != f.Service, v.Endpoint.Connection.LinkID != f.LinkID:
		return v, false
	case v.Unjudged && !f.Unread: // pinned since, and the name was never read
		return v, false
	case f.Target == netip.AddrPort{}:
		return v, true
	}
	return v, v.Service.Sends(f.Target, f.By) && s.Refuses(v.Service, f.Target, g) == ""
}

// Awaited returns the link ID of the live connection at an address, which who connects there may send a PROXY
// header for; 0 where there is none.
func Awaited(s *link.Snapshot, local netip.AddrPort) link.LinkID {
	if s != nil {
		if e := s.EndpointAt(local.Addr()); e != nil && e.Connection.Live() {
			return e.Connection.LinkID
		}
	}
	return 0
}
