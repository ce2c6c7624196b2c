package proxy

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/postern-link/postern/proxy/budget"
	"github.com/postern-link/postern/proxy/engine"
)

// Settings is what an operator may set. Zero values mean the default in the comment.
type Settings struct {
	HelloTimeout   time.Duration    // to send the first bytes of a pinned flow: 5 s
	DialTimeout    time.Duration    // to reach a target, all tries of one flow together: 5 s
	DrainTimeout   time.Duration    // for live flows at shutdown: 30 s
	LeaveTimeout   time.Duration    // for live flows after another process has taken this one's place: 1 h
	MaxFlows       int              // at once: what descriptors and memory have room for, see flowsFor
	MaxPerSource   int              // flows at once of one IPv4 address or IPv6 /64: a tenth of MaxFlows
	ProbeInterval  time.Duration    // between two probes of a target: 2 s
	InboundHeaders []netip.Prefix   // peers that send, and must send, a PROXY header: none
	Resolvers      []netip.AddrPort // whom to ask for the names of targets, in order: those of /etc/resolv.conf
	PerAddress     bool             // bind each endpoint address, even if it isn't loopback: false
	FastOpen       int              // connections that may wait with the bytes of their SYN, RFC 7413: none
	Portable       bool             // copy in the portable way; of use to who makes the proxy, see Config: false

	// Own are what this process itself listens on or is going to, such as for DNS and the API; not for the
	// operator to set. Nothing is opened for endpoints that would stand against them, and no flow is let in
	// at their addresses.
	Own []netip.AddrPort `json:"-"`
	// OwnUDP are those of them that are of UDP, which are all that stand against a listener for UDP.
	OwnUDP []netip.AddrPort `json:"-"`
}

// What isn't for the operator to set.
const (
	headerTimeout   = 5 * time.Second        // for an inbound PROXY header, in all
	tendInterval    = time.Second            // between two looks at idle flows and missing listeners
	unpublishedPace = 500 * time.Millisecond // between probes of a service that has never answered
	reserved        = 512                    // descriptors for DNS, API, store, listeners
	perFlow         = 6                      // descriptors of a flow with both pipes borrowed
)

// withDefaults returns the settings with every zero value replaced, for a process that has so much memory.
func (s Settings) withDefaults(m budget.Memory) Settings {
	s.HelloTimeout = cmp.Or(s.HelloTimeout, 5*time.Second)
	s.DialTimeout = cmp.Or(s.DialTimeout, 5*time.Second)
	s.DrainTimeout = cmp.Or(s.DrainTimeout, 30*time.Second)
	s.LeaveTimeout = cmp.Or(s.LeaveTimeout, time.Hour)
	s.ProbeInterval = cmp.Or(s.ProbeInterval, 2*time.Second)
	s.MaxFlows = cmp.Or(s.MaxFlows, flowsFor(m, descriptorLimit()))
	s.MaxPerSource = cmp.Or(s.MaxPerSource, max(1, s.MaxFlows/10))
	return s
}

// fewFlows is what a data plane should be able to carry at least.
const fewFlows = 1000

// tellLimits logs the limits that are in force from now on, where they are others than before. They
// follow from the limit of open files and that of memory, which are easily overlooked.
func (p *Proxy) tellLimits(old *Settings, now Settings) {
	p.metrics.flowsLimit.Set(float64(now.MaxFlows))
	if old != nil && old.MaxFlows == now.MaxFlows && old.MaxPerSource == now.MaxPerSource {
		return
	}
	tell := p.log.Info
	if now.MaxFlows < fewFlows {
		tell = p.log.Warn
	}
	tell("limits of the data plane", "max_flows", now.MaxFlows, "max_per_source", now.MaxPerSource, "open_files", descriptorLimit(),
		"memory", p.memory.Limit, "memory_of", p.memory.From)
}

// HasEpoll reports whether this build has an engine that isn't portable.
const HasEpoll = engine.HasEpoll

// tellEngine says when a setting waits for the next process: connections of two engines can't be copied to each other.
func (p *Proxy) tellEngine(now Settings) {
	if now.Portable != p.portable {
		p.log.Warn("another engine is taken when the process is started anew", "portable", now.Portable)
	}
}

// Drain returns the drain timeout in force.
func (s Settings) Drain() time.Duration { return s.withDefaults(budget.Memory{}).DrainTimeout }

// Leaving returns how long flows may go on after another process has taken this one's place.
func (s Settings) Leaving() time.Duration { return s.withDefaults(budget.Memory{}).LeaveTimeout }

// sendsHeader reports whether a peer must send a PROXY header.
func (s *Settings) sendsHeader(peer netip.Addr) bool {
	for _, p := range s.InboundHeaders {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}
