package link

// Change is one step from a snapshot to the next: one of the types below.
type Change interface {
	apply(*tx) error
}

// PutNetwork creates a network or replaces the one of its ID.
type PutNetwork struct{ Network Network }

// DeleteNetwork deletes a network that has no endpoints.
type DeleteNetwork struct{ ID ID }

// PutService creates a service or replaces the one of its ID, whose alias it keeps. Pending
// connections that its lists now approve are approved. A service of a declaration is the operator's
// word: there a connection that a rule had approved and that the lists no longer name goes back to
// Pending, or to Rejected where the reject list names it.
type PutService struct{ Service Service }

// DeleteService deletes a service; its connections become Disconnected. Without Force it is
// refused while there are Pending or Approved ones.
type DeleteService struct {
	ID    ID
	Force bool
}

// PutEndpoint asks for an endpoint, or replaces the allow-list of the one of its ID. A new endpoint
// without an address is given one of its network's pools. The connection of Endpoint is ignored: a
// new one starts Pending, or Approved where the service says so. Network, service and address of an
// endpoint never change.
type PutEndpoint struct {
	Endpoint Endpoint
	Message  string // the consumer's words to the provider
}

// DeleteEndpoint deletes an endpoint; its address is free and its link ID retired.
type DeleteEndpoint struct{ ID ID }

// Decide approves or rejects a connection. LinkID is the one that was looked at: another one now is
// [ErrStale]. State is Approved or Rejected.
type Decide struct {
	Endpoint ID
	LinkID   LinkID
	State    State
	Decision Decision
}

// Disconnect is the provider's removal of a connection.
type Disconnect struct {
	Endpoint ID
	LinkID   LinkID
	Decision Decision
}

// AskAgain makes a Disconnected connection a new request: same address, new link ID.
type AskAgain struct {
	Endpoint ID
	Message  string
}

// Suspend stops an Approved connection, Resume lets it go on with the same link ID.
type Suspend struct {
	Endpoint ID
	LinkID   LinkID
	Decision Decision
}

// Resume undoes [Suspend].
type Resume struct {
	Endpoint ID
	LinkID   LinkID
	Decision Decision
}

// Declare makes the objects of one declaration those given: what is new is added, what changed is
// updated, what is gone is removed, everything else is left alone. The Origin of each object must
// carry the declaration's name. A declared endpoint whose network, service or address changed is
// deleted and asked for anew. An object that another origin holds is [ErrConflict].
type Declare struct {
	Declaration string
	Networks    []Network
	Services    []Service // Alias: used for a new service only
	Endpoints   []Endpoint
}

// Restore makes the whole state the given objects, as of a backup. Link IDs that were alive and are
// no more are retired.
type Restore struct{ Objects []Object }
