package link

// The tallies are counters by key, kept so that a limit can be checked without a walk:
//
//	a service                  approved connections
//	c service 0 tenant         approved connections of a consumer
//	p service 0 tenant         pending connections of a consumer
//	e service                  endpoints that aren't Disconnected
//	n network                  endpoints
//	o kind 0 subscription      objects of the API
//	d type 0 subscription      documents
//	r zone                     record sets
//	l network                  private zones that are linked to it
//	q tenant                   link IDs that rest

// tally counts an endpoint in or out.
func (t *tx) tally(e *Endpoint, d int) {
	all := &t.next.tallies
	add(all, tallyKey('n', string(e.Network), ""), d)
	t.countObject(KindEndpoint, e.ID, d)
	switch e.Connection.State {
	case Disconnected:
		return
	case Approved:
		add(all, tallyKey('a', string(e.Service), ""), d)
		add(all, tallyKey('c', string(e.Service), e.Tenant), d)
	case Pending:
		add(all, tallyKey('p', string(e.Service), e.Tenant), d)
	}
	add(all, tallyKey('e', string(e.Service), ""), d)
}

// countObject counts an object of a subscription in or out.
func (t *tx) countObject(kind Kind, id ID, d int) {
	if sub := id.Subscription(); sub != "" {
		add(&t.next.tallies, tallyKey('o', string(kind), sub), d)
	}
}

// Approved returns the number of approved connections of a service, suspended ones included.
func (s *Snapshot) Approved(service ID) int {
	return counter(&s.tallies, tallyKey('a', string(service), ""))
}

// ApprovedOf returns the number of approved connections that a tenant has to a service.
func (s *Snapshot) ApprovedOf(service ID, tenant string) int {
	return counter(&s.tallies, tallyKey('c', string(service), tenant))
}

// PendingOf returns the number of requests of a tenant that wait for the provider of a service.
func (s *Snapshot) PendingOf(service ID, tenant string) int {
	return counter(&s.tallies, tallyKey('p', string(service), tenant))
}

// CountOf returns the number of endpoints of a service, those that are Disconnected left out.
func (s *Snapshot) CountOf(service ID) int {
	return counter(&s.tallies, tallyKey('e', string(service), ""))
}

// CountIn returns the number of endpoints in a network.
func (s *Snapshot) CountIn(network ID) int {
	return counter(&s.tallies, tallyKey('n', string(network), ""))
}

// Resting returns the number of link IDs that a tenant's connections have left and that aren't given out yet.
func (s *Snapshot) Resting(tenant string) int {
	return counter(&s.tallies, tallyKey('q', tenant, ""))
}

// Owned returns the number of objects of a kind in a subscription.
func (s *Snapshot) Owned(kind Kind, subscription string) int {
	return counter(&s.tallies, tallyKey('o', string(kind), subscription))
}

func tallyKey(what byte, of, tenant string) []byte {
	key := make([]byte, 0, 2+len(of)+len(tenant))
	key = append(append(append(key, what), of...), 0)
	return append(key, tenant...)
}
