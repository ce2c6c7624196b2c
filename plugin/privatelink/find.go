package privatelink

import (
	"bytes"

	"github.com/postern-link/postern/link"
)

// policy is what becomes of a name in a privatelink zone that has no endpoint.
type policy string

const (
	missPass     policy = "pass"
	missNXDomain policy = "nxdomain"
	missRefuse   policy = "refuse"
)

// kind is what a name is in a view.
type kind uint8

const (
	foundNothing kind = iota // nothing of ours
	foundName                // a name with a published endpoint
	foundApex                // the apex of a zone
	foundEmpty               // no records, but names below it exist (RFC 8020)
	foundMiss                // in a zone, without an endpoint
	foundDenied              // in a linked zone, which doesn't have it
)

// finding is a name as one network sees it.
type finding struct {
	kind   kind
	set    *set      // of a name, of a denied one, and of the apex of a linked zone
	zone   link.Name // that the name is in, "" where there is none
	policy policy    // of a miss
}

// find looks a name up that is in canonical form, as a view has it. Those that prove a domain are public DNS's to answer.
func (p *Privatelink) find(g *generation, v view, asked []byte) finding {
	network := v.network
	if len(asked) == 0 || link.IsProof(asked) {
		return finding{}
	}
	a := g.answerFor(network, asked)
	if a != nil && a.pattern && string(p.Zones.Zone(asked)) == string(asked) {
		a = nil // *.azurewebsites.net isn't meant to stand for privatelink.azurewebsites.net, which is a zone
	}
	if a != nil {
		if a.live && p.Published(a.service) {
			if a.fallback && !p.Healthy(a.service) {
				return finding{} // the service wants its public address while no target answers
			}
			return finding{kind: foundName, set: p.at(v.site, a.service, &a.addressed), zone: a.zone}
		}
		// As if no endpoint existed.
	} else if p.ptr && bytes.HasSuffix(asked, []byte(".arpa")) {
		if set := p.reverse(g, network, asked); set != nil {
			return finding{kind: foundName, set: set}
		}
	}
	if f, ok := p.findLinked(g, v, asked); ok {
		return f
	}
	return p.findInZone(g, network, asked, a != nil)
}

// findInZone looks up a name without an answer. Owned says that a connection has the name, which just
// isn't in force.
func (p *Privatelink) findInZone(g *generation, network link.ID, asked []byte, owned bool) finding {
	zone := p.zoneOf(g, network, asked)
	if zone == "" {
		return finding{}
	}
	live := g.snapshot.HasZone(network, asked[len(asked)-len(zone):])
	miss, explicit := p.missIn[zone]
	if !explicit {
		miss = missPass
		if live {
			miss = p.miss
		}
	}
	switch {
	case len(asked) == len(zone) && (live || miss == missNXDomain):
		return finding{kind: foundApex, zone: zone}
	case len(asked) == len(zone) && miss == missPass:
		return finding{zone: zone}
	case live && !owned && g.snapshot.OwnsBelow(network, asked):
		return finding{kind: foundEmpty, zone: zone}
	}
	return finding{kind: foundMiss, zone: zone, policy: miss}
}

// zoneOf returns the private zone of a name: one of the table, or one that a service brought along.
func (p *Privatelink) zoneOf(g *generation, network link.ID, asked []byte) link.Name {
	if zone := p.Zones.Zone(asked); zone != "" {
		return zone
	}
	for i := 0; ; i++ {
		if g.snapshot.HasZone(network, asked[i:]) {
			// The first hit is the name itself or an empty name above it; the zone is the last one.
			return link.Name(widest(g.snapshot, network, asked[i:]))
		}
		dot := bytes.IndexByte(asked[i:], '.')
		if dot < 0 {
			return ""
		}
		i += dot
	}
}

// widest returns the shortest suffix of a name that exists in the network.
func widest(s *link.Snapshot, network link.ID, asked []byte) []byte {
	for {
		dot := bytes.IndexByte(asked, '.')
		if dot < 0 || !s.OwnsBelow(network, asked[dot+1:]) {
			return asked
		}
		asked = asked[dot+1:]
	}
}

// maxName is the longest name in presentation form without escapes, and then some.
const maxName = 256

// escaped stands for any character that a name of ours can't have.
const escaped = '\\'

// Canonical appends a name of a question to buf in the form in which [link.Snapshot] wants it: ASCII
// lower case, no trailing dot. An escaped character, which no name of ours has, becomes one [escaped].
func Canonical(buf []byte, fqdn string) []byte {
	for i := 0; i < len(fqdn); i++ {
		c := fqdn[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c == escaped:
			i++
			if i+2 < len(fqdn) && fqdn[i] >= '0' && fqdn[i] <= '9' {
				i += 2
			}
		}
		buf = append(buf, c)
	}
	if n := len(buf); n > 0 && buf[n-1] == '.' {
		buf = buf[:n-1]
	}
	return buf
}
