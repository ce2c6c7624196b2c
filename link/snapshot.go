package link

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"
)

// Snapshot is one immutable value of the world. All methods are safe for concurrent use and take no
// lock; what they return must not be modified. The zero Snapshot is not valid: see [Empty] and [Load].
type Snapshot struct {
	revision uint64

	// The objects, by key.
	networks  sorted[*Network]
	services  sorted[*Service]
	endpoints sorted[*Endpoint]
	retired   sorted[*Retired] // by link ID, big-endian
	private   privateDNS       // zones, record sets and documents

	// What follows is computed from the objects.
	clients   *bart.Table[*Network]  // by prefix; networks found by listener alone are left out
	pools     *bart.Table[ID]        // the network of each pool
	addresses *bart.Table[*Endpoint] // by host prefix
	links     sorted[*Endpoint]      // by link ID, big-endian
	resting   sorted[*Retired]       // by time in Unix nanoseconds and link ID, big-endian
	byService sorted[*Endpoint]      // by service, 0, endpoint
	byBoth    sorted[*Endpoint]      // by network, 0, service, 0, endpoint
	owners    sorted[Owner]          // by network, 0, name
	exists    sorted[int]            // by network, 0, name in a zone: live private names at or below it
	tallies   sorted[int]            // see tally.go
	backends  sorted[int]            // by address and tenant: see reach.go
	aliases   sorted[*Service]       // by the SHA-256 of the alias
	claims    sorted[int]            // see claim.go
	suffixes  sorted[int]            // by name: public names of services that are it or right below it
	placed    sorted[ID]             // services, by what marks say of them: see since.go
	targeted  sorted[int]            // by address: targets of services
	sources   sorted[int]            // by address: NAT addresses of services
	ports     sorted[int]            // by protocol, 0, family (4 or 6) and port: routed endpoints
	loopback  sorted[netip.AddrPort] // by protocol, 0, address and port
	cursors   sorted[cursor]         // by network: where in its pools the next address is looked for

	marks marks  // what changed when
	watch *watch // nil but for a traced snapshot
}

// Empty returns the snapshot of revision 0, which holds nothing.
func Empty() *Snapshot {
	return &Snapshot{
		clients:   new(bart.Table[*Network]),
		pools:     new(bart.Table[ID]),
		addresses: new(bart.Table[*Endpoint]),
	}
}

// Revision is the number of commits that led to the snapshot.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Network returns the network of an ID, nil where there is none.
func (s *Snapshot) Network(id ID) *Network {
	n, _ := s.networks.get([]byte(id))
	return n
}

// SitesOf returns the sites of a network. Where it is traced, it is that the network is there, and its sites: they stay the same when
// others of its properties change.
func (s *Snapshot) SitesOf(network ID) Sites {
	s.watch.read(ofSites, []byte(network))
	n, ok := s.networks.peek([]byte(network))
	if !ok {
		return nil
	}
	return n.Sites
}

// Service returns the service of an ID, nil where there is none.
func (s *Snapshot) Service(id ID) *Service {
	v, _ := s.services.get([]byte(id))
	return v
}

// Endpoint returns the endpoint of an ID, nil where there is none.
func (s *Snapshot) Endpoint(id ID) *Endpoint {
	e, _ := s.endpoints.get([]byte(id))
	return e
}

// Objects yields everything, in order of kind and key: documents, endpoints, networks, record sets, retired
// link IDs, services, private zones.
func (s *Snapshot) Objects() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		_ = each(s.private.documents.values(nil), yield) && each(s.Endpoints(), yield) && each(s.Networks(), yield) &&
			each(s.private.records.values(nil), yield) && each(s.retired.values(nil), yield) && each(s.Services(), yield) &&
			each(s.private.zones.values(nil), yield)
	}
}

// each passes on what seq yields and reports whether yield wants more.
func each[T Object](seq iter.Seq[T], yield func(Object) bool) bool {
	for o := range seq {
		if !yield(o) {
			return false
		}
	}
	return true
}

// Networks yields the networks in order of their IDs.
func (s *Snapshot) Networks() iter.Seq[*Network] { return s.networks.values(nil) }

// Services yields the services in order of their IDs.
func (s *Snapshot) Services() iter.Seq[*Service] { return s.services.values(nil) }

// Endpoints yields the endpoints in order of their IDs.
func (s *Snapshot) Endpoints() iter.Seq[*Endpoint] { return s.endpoints.values(nil) }

// CountEndpoints returns the number of endpoints.
func (s *Snapshot) CountEndpoints() int { return s.endpoints.size() }

// EndpointsOf yields the endpoints of a service in order of their IDs.
func (s *Snapshot) EndpointsOf(service ID) iter.Seq[*Endpoint] {
	return s.byService.values(within(service, ""))
}

// EndpointsIn yields the endpoints in a network in order of their services and IDs.
func (s *Snapshot) EndpointsIn(network ID) iter.Seq[*Endpoint] {
	return s.byBoth.values(within(network, ""))
}

// NetworkOf returns the network of a client address: that of the longest prefix, nil where no
// network has the address. Networks found by listener alone don't count.
func (s *Snapshot) NetworkOf(client netip.Addr) *Network {
	s.watch.readAll()
	n, _ := s.clients.Lookup(client.Unmap().WithZone(""))
	return n
}

// EndpointAt returns the endpoint of an address in any state, nil where there is none.
func (s *Snapshot) EndpointAt(addr netip.Addr) *Endpoint {
	addr = addr.Unmap()
	if s.watch != nil {
		s.watch.read(ofAddresses, addrKey(addr))
	}
	e, _ := s.addresses.Lookup(addr)
	return e
}

// EndpointOf returns the endpoint whose connection has the link ID, nil where there is none.
func (s *Snapshot) EndpointOf(id LinkID) *Endpoint {
	e, _ := s.links.get(linkKey(id))
	return e
}

// PoolOf returns the network and pool that an address is in; nil where there is none.
func (s *Snapshot) PoolOf(addr netip.Addr) (*Network, netip.Prefix) {
	s.watch.readAll()
	addr = addr.Unmap()
	if !addr.IsValid() {
		return nil, netip.Prefix{}
	}
	pool, id, ok := s.pools.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen()))
	if !ok {
		return nil, netip.Prefix{}
	}
	return s.Network(id), pool
}

// pooled reports whether an address is in a pool.
func (s *Snapshot) pooled(a netip.Addr) bool {
	s.watch.read(ofPools, nil)
	_, ok := s.pools.Lookup(a.Unmap())
	return ok
}

// clientOf returns whose network has a client address, as [Snapshot.NetworkOf] finds it.
func (s *Snapshot) clientOf(a netip.Addr) (tenant string, ok bool) {
	s.watch.read(ofClients, nil)
	n, ok := s.clients.Lookup(a.Unmap().WithZone(""))
	if !ok {
		return "", false
	}
	return n.Tenant, true
}

// EndpointsFor yields the endpoints of a service in one network, in any state, in order of IDs.
func (s *Snapshot) EndpointsFor(network, service ID) iter.Seq[*Endpoint] {
	return s.byBoth.values(bothKey(network, service, ""))
}

// Owner is who a name belongs to in one network: a service with at least one endpoint there.
type Owner struct {
	Service   ID
	Name      ResourceName
	endpoints int // how many
}

// maxKey is the longest key of a name within a network: an ID, a zero byte and a name.
const maxKey = 255 + 1 + 253

// Owner returns who has name, public or private, in a network; ok is false where nobody has. The name
// is in canonical form; a pattern answers for the names that it matches where no exact name does.
// Private reports whether it is the private name. It doesn't allocate.
func (s *Snapshot) Owner(network ID, name []byte) (owner Owner, private, ok bool) {
	if len(network)+1+len(name) > maxKey {
		return Owner{}, false, false
	}
	var buf [maxKey]byte
	key := append(append(append(buf[:0], network...), 0), name...)
	if owner, ok = s.owners.get(key); !ok {
		// The pattern of the name: its first label replaced by "*".
		dot := 0
		for dot < len(name) && name[dot] != '.' {
			dot++
		}
		if dot == 0 || dot == len(name) {
			return Owner{}, false, false
		}
		key = append(append(key[:len(network)+1], '*'), name[dot:]...)
		if owner, ok = s.owners.get(key); !ok {
			return Owner{}, false, false
		}
	}
	return owner, string(key[len(network)+1:]) == string(owner.Name.Private), true
}

// OwnsBelow reports whether name, which is in a privatelink zone, exists in the network in the sense
// of RFC 8020: it or a name below it is the private name of a live connection. It doesn't allocate.
func (s *Snapshot) OwnsBelow(network ID, name []byte) bool {
	if len(network)+1+len(name) > maxKey {
		return false
	}
	var buf [maxKey]byte
	return some(&s.exists, append(append(append(buf[:0], network...), 0), name...))
}

// HasZone reports whether a live connection in the network has a private name in the zone.
func (s *Snapshot) HasZone(network ID, zone []byte) bool { return s.OwnsBelow(network, zone) }

// Ports yields the ports of a protocol that routed (not loopback) endpoint addresses of the family listen on.
func (s *Snapshot) Ports(p Protocol, ipv6 bool) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for key := range s.ports.all(append(within(ID(p), ""), family(ipv6))) {
			if !yield(binary.BigEndian.Uint16([]byte(key[len(key)-2:]))) {
				return
			}
		}
	}
}

// Loopback yields address and port of the endpoints of a protocol on loopback addresses.
func (s *Snapshot) Loopback(p Protocol) iter.Seq[netip.AddrPort] {
	return s.loopback.values(within(ID(p), ""))
}

func family(ipv6 bool) byte {
	if ipv6 {
		return 6
	}
	return 4
}

// within returns the key of sub within an ID.
func within(id ID, sub string) []byte {
	return append(append([]byte(id), 0), sub...)
}

func linkKey(id LinkID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(id)) }
