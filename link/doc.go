// Package link is the domain of Postern: the objects of private connectivity, the rules they
// obey, and the immutable [Snapshot] that holds them all. It does no I/O and asks no clock; the
// time of a change is an argument.
//
// One word per concept:
//
//   - tenant: who owns things and signs in (Azure: tenant, subscription).
//   - network: a consumer's address space; DNS views and endpoints belong to one (virtual network).
//   - prefix: client addresses that belong to a network. Pool: addresses its endpoints are given.
//   - service: what a provider publishes (private link service).
//   - resource name: a DNS name that is this one service: what DNS answers and what SNI must say
//     (fqdns, sub-resource). It has a public name and, within a zone, a private name.
//   - site: a named place that some addresses are at: of clients and endpoints by their network, of targets by their service.
//   - target: where the bytes go, address and port of a backend.
//   - endpoint: an address in a consumer's network that stands for one service (private endpoint).
//   - connection: the provider-side half of an endpoint: state, decision, link ID (private endpoint
//     connection).
//   - link ID: the 32-bit number of a connection, unique while it lives and not reused for seven
//     days; it tells the backend who is calling (linkIdentifier).
//   - zone: a privatelink zone and the public suffix that it belongs to (private DNS zone).
//   - party: who an access list of a service speaks of: a network, a tenant, or anyone.
//   - origin: the declaration (a Corefile) that an object came from; none for objects of the API.
//   - declaration: the objects of one Corefile, applied as one change set that it owns.
//   - change: one step from a snapshot to the next. Delta: what a change did to one object.
//   - trace: what was read of a snapshot. Place: where a snapshot says what changed last, of all that has one hash.
//   - flow: one TCP connection through the proxy.
package link
