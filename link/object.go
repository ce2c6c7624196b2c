package link

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ID names an object among those of its kind: lower case, one or more segments of letters,
// digits, '.', '_' and '-', joined by '/'. Objects of a Corefile have one segment. [ParseID]
// makes one.
type ID string

// ParseID returns s, folded to lower case, as an ID, or an error wrapping [ErrInvalid].
func ParseID(s string) (ID, error) {
	if s == "" || len(s) > 255 {
		return "", fmt.Errorf("%w: a name has 1 to 255 characters, %q has %d", ErrInvalid, clip(s), len(s))
	}
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" {
			return "", fmt.Errorf("%w: name %q has an empty segment", ErrInvalid, clip(s))
		}
		for i := range len(seg) {
			c := seg[i] | 0x20
			if (c < 'a' || c > 'z') && (seg[i] < '0' || seg[i] > '9') && (i == 0 || !strings.ContainsRune("._-", rune(seg[i]))) {
				return "", fmt.Errorf("%w: name %q: letters, digits, '.', '_' and '-' are allowed, a letter or digit first", ErrInvalid, clip(s))
			}
		}
	}
	return ID(strings.ToLower(s)), nil
}

// Subscription returns the subscription that an object of the API is in, the first of its three
// segments, and "" for an object of a Corefile.
func (id ID) Subscription() string {
	if strings.Count(string(id), "/") != 2 {
		return ""
	}
	first, _, _ := strings.Cut(string(id), "/")
	return first
}

// Last returns the last segment of an ID: the name of the object within its group.
func (id ID) Last() string { return string(id[strings.LastIndexByte(string(id), '/')+1:]) }

// Kind is the kind of an object.
type Kind string

// The kinds of objects that a snapshot holds.
const (
	KindNetwork  Kind = "network"
	KindService  Kind = "service"
	KindEndpoint Kind = "endpoint"
	KindRetired  Kind = "retired"
	KindZone     Kind = "zone"
	KindRecord   Kind = "record"
	KindDocument Kind = "document"
)

// Object is one of [*Network], [*Service], [*Endpoint], [*Retired], [*PrivateZone], [*RecordSet] and
// [*Document]: what a snapshot is made of and what a store keeps. Objects taken from a snapshot are shared and must not be modified.
type Object interface {
	// Kind and Key together name the object within a snapshot.
	Kind() Kind
	Key() string
}

// Origin says which declaration an object came from. The zero Origin is the API.
type Origin struct {
	Declaration string `json:"declaration,omitempty"` // the declaration's name, by default the host's
	File        string `json:"file,omitempty"`        // the Corefile
	Line        int    `json:"line,omitempty"`        // the line of the object's directive
}

// String returns "file:line", or "the API" for the zero Origin.
func (o Origin) String() string {
	if o.Declaration == "" {
		return "the API"
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Facet is what an object carries and the domain doesn't read.
type Facet struct {
	// UID tells an object from another that had its ID before: 128 random bits in hexadecimal, chosen
	// by whoever creates it, kept by Apply. Objects of a Corefile have none.
	UID string `json:"uid,omitempty"`
	// API is the control API's own part of the object, such as tags and location.
	API json.RawMessage `json:"api,omitempty"`
	// Extra are the fields of a stored object that this version doesn't know, of a newer one beside it.
	Extra map[string]json.RawMessage `json:"-"`
}

// keep gives f, of an object that takes the place of one with old, what lasts.
func (f *Facet) keep(old Facet) {
	f.UID = old.UID
	if f.Extra == nil {
		f.Extra = old.Extra
	}
}

// Network is a consumer's address space.
type Network struct {
	ID     ID     `json:"id"`
	Tenant string `json:"tenant,omitempty"` // "" is the operator's own tenant
	Facet
	// Prefixes are the client addresses of the network: masked, no IPv4-mapped IPv6.
	Prefixes []netip.Prefix `json:"prefixes"`
	// Pools are the prefixes that endpoint addresses are taken from. No two networks share a pool
	// address. The first and last address of an IPv4 pool shorter than /31 are never given out.
	Pools []netip.Prefix `json:"pools,omitempty"`
	// Subnets are named parts of the prefixes that endpoints may take their addresses from instead of
	// the pools. Other hosts, targets among them, may have addresses of a subnet too.
	Subnets []Subnet `json:"subnets,omitempty"`
	// Egress lists what the network may have endpoints to: "*", "tenant/NAME", the ID or the alias of
	// a service. Empty: the services of its own tenant.
	Egress []string `json:"egress,omitempty"`
	// Sites are where clients and endpoints of the network are: DNS prefers endpoints at the client's own.
	Sites Sites `json:"sites,omitempty"`
	// ByListener: clients are never found by their address, only where a listener names the
	// network. Such a network may have the prefixes of another.
	ByListener bool   `json:"byListener,omitempty"`
	Origin     Origin `json:"origin,omitzero"`
}

// The most that a network lists. Azure's figure for subnets is the same; its others are beyond what is of use,
// and what each change of the network costs grows with them.
const (
	MaxPrefixes       = 64 // of a network; and pools
	MaxSubnets        = 3000
	MaxSubnetPrefixes = 16 // of a subnet
	MaxEgress         = 256
)

// Kind implements [Object].
func (*Network) Kind() Kind { return KindNetwork }

// Key implements [Object].
func (n *Network) Key() string { return string(n.ID) }

// Subnet is a named part of a network. The first four and the last address of an IPv4 subnet shorter than
// /29, as those of a pool in a longer one, are never given out.
type Subnet struct {
	Name     string         `json:"name"` // lower case, a segment of an ID
	Prefixes []netip.Prefix `json:"prefixes"`
}

// ResourceName is one DNS name that a service is.
type ResourceName struct {
	// Public is the name that clients ask for and that SNI must carry. "*.example.com" stands for
	// every name with exactly one more label.
	Public Name `json:"public"`
	// Private is the name within the privatelink zone that Public is an alias of in DNS. Empty:
	// Public itself has the address.
	Private Name `json:"private,omitempty"`
	// Zone is the apex of the privatelink zone that Private is in, empty when Private is.
	Zone Name `json:"zone,omitempty"`
}

// Target is where the bytes of a service go.
type Target struct {
	Addr netip.AddrPort `json:"addr"`
}

// Party is one entry of an access list: "*" for anyone, "tenant/NAME" for all networks of a
// tenant, "subscription/ID" for those of a subscription, or the ID of a network.
type Party string

// Anyone is the party that matches every network.
const Anyone Party = "*"

// ProxyProtocol says which PROXY protocol header the targets of a service receive.
type ProxyProtocol string

// The PROXY headers: none, version 1, version 2, and version 2 with a cloud's private-link TLV.
const (
	ProxyOff   ProxyProtocol = "off"
	ProxyV1    ProxyProtocol = "v1"
	ProxyV2    ProxyProtocol = "v2"
	ProxyAzure ProxyProtocol = "azure" // type 0xEE, subtype 0x01, link ID uint32 little-endian
	ProxyAWS   ProxyProtocol = "aws"   // type 0xEA, subtype 0x01, endpoint ID in ASCII
	ProxyGCP   ProxyProtocol = "gcp"   // type 0xE0, link ID uint64 big-endian
)

// Bounds of the idle timeout of a service of TCP, and of lists.
const (
	DefaultIdleTimeout = 300 * time.Second
	MinIdleTimeout     = 60 * time.Second
	MaxIdleTimeout     = 6000 * time.Second
	MaxNAT             = 8 // addresses
)

// Service is what a provider publishes.
type Service struct {
	ID     ID     `json:"id"`
	Tenant string `json:"tenant,omitempty"`
	Facet
	// Alias is how a consumer of another tenant names the service: 128 random bits, see [NewAlias].
	// Apply keeps it for the life of the service.
	Alias string         `json:"alias"`
	Names []ResourceName `json:"names,omitempty"`
	// Port is the port of Protocol that endpoints of the service listen on.
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol,omitempty"`
	Targets  []Target `json:"targets"` // none, nor names of them: of the API, a service whose backends aren't known yet
	// TargetNames are targets too, by their names: see [NamePort].
	TargetNames []NamePort `json:"targetNames,omitempty"`
	// Within are the prefixes that the names of targets may lead to; empty: anything that [Snapshot.Refuses] lets pass. To
	// a service of the operator's what is in them is as if it were written down.
	Within []netip.Prefix `json:"within,omitempty"`
	// Sites are where targets are: an endpoint at a site of the same name, by the [Network.Sites] of its network, sends its
	// flows to targets there while one is of use, and is healthy while one answers.
	Sites Sites `json:"sites,omitempty"`
	// Visible lists who may ask for an endpoint, AutoApprove (a subset) who needs no decision,
	// Reject who may not whatever the others say. An empty list is nobody.
	Visible     []Party `json:"visible,omitempty"`
	AutoApprove []Party `json:"autoApprove,omitempty"`
	Reject      []Party `json:"reject,omitempty"`
	// MaxConnections bounds the approved connections; a request beyond stays Pending. 0: no bound.
	MaxConnections int `json:"maxConnections,omitempty"`
	// MaxPerConsumer bounds the approved connections of each consumer, a tenant. 0: no bound.
	MaxPerConsumer int `json:"maxPerConsumer,omitempty"`
	Pin            Pin `json:"pin"`
	// ECHOuter lets a pinned client send an Encrypted ClientHello (RFC 9849): the pin then holds the outer name
	// alone, and which one the target serves can't be seen. For targets that hold no ECH keys.
	ECHOuter      bool          `json:"echOuter,omitempty"`
	ProxyProtocol ProxyProtocol `json:"proxyProtocol"`
	// NAT are the source addresses towards the targets, at most [MaxNAT]. Empty: the kernel's choice.
	NAT []netip.Addr `json:"nat,omitempty"`
	// Reach are the prefixes that the tenant of the service was granted when the service was last put: it may
	// have targets and NAT addresses in them that are another tenant's.
	Reach []netip.Prefix `json:"reach,omitempty"`
	// IdleTimeout ends a flow that carried nothing for so long. 0: [Protocol.IdleBounds] has the default.
	IdleTimeout time.Duration `json:"idleTimeout,omitempty"`
	// FallbackPublic lets the public name be answered by the next plugin while no target is healthy.
	FallbackPublic bool `json:"fallbackPublic,omitempty"`
	// Strict: a node that can't confirm its view of the state cuts the flows of the service, whatever
	// the node's own setting.
	Strict bool   `json:"strict,omitempty"`
	Origin Origin `json:"origin,omitzero"`
	Spread
}

// Kind implements [Object].
func (*Service) Kind() Kind { return KindService }

// Key implements [Object].
func (s *Service) Key() string { return string(s.ID) }

// Endpoint is an address in a consumer's network that stands for one service.
type Endpoint struct {
	ID     ID     `json:"id"`
	Tenant string `json:"tenant,omitempty"`
	Facet
	Network ID `json:"network"`
	// Subnet is the one of the network that the address is taken from, "" for its pools.
	Subnet string `json:"subnet,omitempty"`
	// Service stays as it is when the service is deleted; the connection is Disconnected then.
	Service ID         `json:"service"`
	Address netip.Addr `json:"address"`
	// Allow are the client addresses that may connect. Empty: the prefixes of the network.
	Allow []netip.Prefix `json:"allow,omitempty"`
	// Zones are the private zones that the names of the service are answered in, for all the networks
	// that a zone is linked to. Without: in the endpoint's own network alone.
	Zones      *ZoneGroup `json:"zones,omitempty"`
	Connection Connection `json:"connection"`
	Origin     Origin     `json:"origin,omitzero"`
}

// Kind implements [Object].
func (*Endpoint) Kind() Kind { return KindEndpoint }

// Key implements [Object].
func (e *Endpoint) Key() string { return string(e.ID) }

// Retired is a link ID whose connection ended; it is not given out again for [LinkIDRest].
type Retired struct {
	LinkID LinkID    `json:"linkId"`
	At     time.Time `json:"at"`
	// Tenant is the consumer whose connection it was: see [Snapshot.Resting]. "" is the operator's own, or not known.
	Tenant string `json:"tenant,omitempty"`
	// Extra is as in [Facet].
	Extra map[string]json.RawMessage `json:"-"`
}

// Kind implements [Object].
func (*Retired) Kind() Kind { return KindRetired }

// Key implements [Object].
func (r *Retired) Key() string { return r.LinkID.String() }

// clip bounds a string from outside for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
