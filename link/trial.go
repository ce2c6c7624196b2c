package link

import "time"

// Trial is a state that changes are tried on one after the other, each at its own cost: nothing is copied, as nobody reads it
// meanwhile. It is for who reads thousands of objects one by one and wants to know at each whether it can be had beside those
// before. The zero Trial is an empty state. It is for one goroutine.
type Trial struct {
	t *tx
	// given are the endpoints that asked for no address and were given one.
	given map[ID]PutEndpoint
}

// Try makes changes at the time at. Errors are those of [Snapshot.Apply]; after one the trial is not to be used any more. An
// endpoint that comes with an address gets it also where one before it was given it without having asked for it: that one gets
// another.
func (r *Trial) Try(at time.Time, changes ...Change) error {
	if r.t == nil {
		r.t = begin(Empty(), at)
		r.t.touched, r.t.owns, r.t.changes.all = nil, true, true
		r.given = make(map[ID]PutEndpoint)
	}
	r.t.at = at.UTC().Round(0)
	for _, c := range changes {
		if err := r.try(c); err != nil {
			return err
		}
	}
	return nil
}

func (r *Trial) try(c Change) error {
	switch c := c.(type) {
	case Declare:
		for _, e := range c.Endpoints {
			r.note(PutEndpoint{Endpoint: e.Endpoint, Message: e.Message})
		}
	case PutEndpoint:
		r.note(c)
		if !c.Endpoint.Address.IsValid() {
			break
		}
		holder := r.t.next.EndpointAt(c.Endpoint.Address)
		if holder == nil {
			break
		}
		again, ok := r.given[holder.ID]
		if !ok {
			break
		}
		if err := r.t.deleteEndpoint(holder); err != nil {
			return err
		}
		if err := c.apply(r.t); err != nil {
			return err
		}
		return again.apply(r.t)
	}
	return c.apply(r.t)
}

// note keeps an endpoint that asks for no address.
func (r *Trial) note(c PutEndpoint) {
	if !c.Endpoint.Address.IsValid() {
		r.given[c.Endpoint.ID] = c
	}
}
