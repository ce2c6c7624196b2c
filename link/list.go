package link

import "iter"

// What follows is for lists that are read page by page, whose cost must be that of the page and not that of
// everything: each yields objects whose IDs begin with prefix and come behind the ID after, in order of
// their IDs. "" for either is no condition; after need not be the ID of anything.

// NetworksFrom yields networks, page by page: see above.
func (s *Snapshot) NetworksFrom(prefix string, after ID) iter.Seq[*Network] {
	return behind(&s.networks, prefix, string(after))
}

// ServicesFrom yields services, page by page.
func (s *Snapshot) ServicesFrom(prefix string, after ID) iter.Seq[*Service] {
	return behind(&s.services, prefix, string(after))
}

// EndpointsFrom yields endpoints, page by page.
func (s *Snapshot) EndpointsFrom(prefix string, after ID) iter.Seq[*Endpoint] {
	return behind(&s.endpoints, prefix, string(after))
}

// ZonesFrom yields private zones, page by page.
func (s *Snapshot) ZonesFrom(prefix string, after ID) iter.Seq[*PrivateZone] {
	return behind(&s.private.zones, prefix, string(after))
}

// DocumentsFrom yields documents of a type, page by page.
func (s *Snapshot) DocumentsFrom(typ, prefix string, after ID) iter.Seq[*Document] {
	return behind(&s.private.documents, DocumentKey(typ, ID(prefix)), DocumentKey(typ, after))
}

// EndpointsOfFrom yields the endpoints of a service that come behind an ID, in order of their IDs.
func (s *Snapshot) EndpointsOfFrom(service, after ID) iter.Seq[*Endpoint] {
	return behind(&s.byService, string(within(service, "")), string(within(service, string(after))))
}

// behind yields the values whose keys begin with prefix and are greater than after.
func behind[V any](m *sorted[V], prefix, after string) iter.Seq[V] {
	return func(yield func(V) bool) {
		// The least key that is greater than after.
		for _, v := range m.from([]byte(prefix), append([]byte(after), 0)) {
			if !yield(v) {
				return
			}
		}
	}
}
