package link

import (
	"iter"
	"net/netip"
	"time"
)

// Delta is what a change did to one object: created (Old nil), deleted (New nil) or replaced.
type Delta struct {
	Kind     Kind
	Key      string
	Old, New Object
}

// Snapshot is one immutable value of the world. All methods are safe for concurrent use and take no
// lock; what they return must not be modified. The zero Snapshot is not valid: see [Empty] and [Load].
type Snapshot struct {
	revision uint64
}

// tx is a snapshot under construction.
type tx struct{}

// Empty returns the snapshot of revision 0, which holds nothing.
func Empty() *Snapshot { panic("unfinished") }

// Load returns the snapshot of the given revision and objects, in any order. Every rule is checked.
func Load(revision uint64, objects iter.Seq[Object]) (*Snapshot, error) { panic("unfinished") }

// Apply returns the snapshot after changes, all or none, made at the time at, and what they did in
// order of kind and key, one delta an object. The revision is one more, also where nothing changed.
// Errors are [*ObjectError] where they are about one object.
func (s *Snapshot) Apply(at time.Time, changes ...Change) (*Snapshot, []Delta, error) {
	panic("unfinished")
}

// Revision is the number of commits that led to the snapshot.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Network, Service and Endpoint return the object of an ID, nil where there is none.
func (s *Snapshot) Network(id ID) *Network   { panic("unfinished") }
func (s *Snapshot) Service(id ID) *Service   { panic("unfinished") }
func (s *Snapshot) Endpoint(id ID) *Endpoint { panic("unfinished") }

// Objects yields everything, in order of kind and key.
func (s *Snapshot) Objects() iter.Seq[Object] { panic("unfinished") }

// Networks, Services and Endpoints yield the objects of a kind in order of their IDs.
func (s *Snapshot) Networks() iter.Seq[*Network]   { panic("unfinished") }
func (s *Snapshot) Services() iter.Seq[*Service]   { panic("unfinished") }
func (s *Snapshot) Endpoints() iter.Seq[*Endpoint] { panic("unfinished") }

// EndpointsOf yields the endpoints of a service, EndpointsIn those of a network, in order of IDs.
func (s *Snapshot) EndpointsOf(service ID) iter.Seq[*Endpoint] { panic("unfinished") }
func (s *Snapshot) EndpointsIn(network ID) iter.Seq[*Endpoint] { panic("unfinished") }

// NetworkOf returns the network of a client address: that of the longest prefix, nil where no
// network has the address. Networks found by listener alone don't count.
func (s *Snapshot) NetworkOf(client netip.Addr) *Network { panic("unfinished") }

// EndpointAt returns the endpoint of an address in any state, nil where there is none.
func (s *Snapshot) EndpointAt(addr netip.Addr) *Endpoint { panic("unfinished") }

// EndpointOf returns the endpoint whose connection has the link ID, nil where there is none.
func (s *Snapshot) EndpointOf(id LinkID) *Endpoint { panic("unfinished") }

// Owner is who a name belongs to in one network.
type Owner struct {
	Service   ID
	Name      ResourceName
	Endpoints []*Endpoint // in any state, at least one, in order of IDs
}

// Owner returns who has name, public or private, in a network: nil where no endpoint has. The name
// is in canonical form; a pattern answers for the names that it matches where no exact name does.
// Private reports whether it is the private name. No allocation.
func (s *Snapshot) Owner(network ID, name []byte) (owner *Owner, private bool) { panic("unfinished") }

// OwnsBelow reports whether a name below the given one, or the name itself, belongs to a live
// connection in the network: whether the name exists in the sense of RFC 8020.
func (s *Snapshot) OwnsBelow(network ID, name []byte) bool { panic("unfinished") }

// HasZone reports whether a live connection in the network has a private name in the zone.
func (s *Snapshot) HasZone(network ID, zone []byte) bool { panic("unfinished") }

// Ports yields the ports that routed (not loopback) endpoint addresses of the family listen on.
func (s *Snapshot) Ports(ipv6 bool) iter.Seq[uint16] { panic("unfinished") }

// Loopback yields address and port of the endpoints on loopback addresses.
func (s *Snapshot) Loopback() iter.Seq[netip.AddrPort] { panic("unfinished") }

// PoolOf returns the network and pool that an address is in; nil where there is none.
func (s *Snapshot) PoolOf(addr netip.Addr) (*Network, netip.Prefix) { panic("unfinished") }
