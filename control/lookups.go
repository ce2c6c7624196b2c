package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/postern-link/postern/link"
)

// Who asks for services that aren't there may do so only so often: an alias can't be guessed, and trying
// shall not cost us anything either.
const (
	missesPerMinute = 60
	seekersKept     = 10000
)

// seekers counts for each caller the services asked for that weren't there.
type seekers struct {
	mu     sync.Mutex
	begun  time.Time // of the minute
	misses map[string]int
}

// missed counts a miss of a caller.
func (k *seekers) missed(caller Caller, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roll(now)
	if _, known := k.misses[caller.key()]; known || len(k.misses) < seekersKept {
		k.misses[caller.key()]++
	}
}

// check returns an [*OftenError] where a caller has missed too often.
func (k *seekers) check(caller Caller, now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roll(now)
	if k.misses[caller.key()] >= missesPerMinute {
		return &OftenError{What: "failed look-ups of services", Limit: missesPerMinute, Wait: k.begun.Add(time.Minute).Sub(now)}
	}
	return nil
}

func (k *seekers) roll(now time.Time) {
	if d := now.Sub(k.begun); k.misses == nil || d < 0 || d >= time.Minute {
		k.begun, k.misses = now, map[string]int{}
	}
}

// key tells callers apart.
func (c Caller) key() string { return c.Tenant + "/" + c.Name }

// sought counts an operation that asked for a service and found none.
func (c *Control) sought(caller Caller, err error) {
	if errors.Is(err, ErrNoService) {
		c.seekers.missed(caller, c.config.Now())
	}
}

// nobody takes the place of a service that isn't there, so that it takes the same time to find that out as
// that it isn't visible.
var nobody = &link.Service{}

// serviceFor returns the service that an endpoint in a network shall be of, by its ID or where that is
// given its alias: [ErrNoService] where there is none or it isn't visible, [ErrEgress] where the network
// may not have endpoints to it. Both ways are judged alike.
func (c *Control) serviceFor(s *link.Snapshot, caller Caller, n *link.Network, id link.ID, alias string) (*link.Service, error) {
	if err := c.seekers.check(caller, c.config.Now()); err != nil {
		return nil, err
	}
	v, name := s.Service(id), string(id)
	if alias != "" {
		v, name = s.ServiceByAlias(alias), alias
	}
	there := v != nil
	if !there {
		v = nobody
	}
	mine := c.sees(caller, v.ID)
	if visible := mine || visibleTo(v, n); !visible || !there || matches(v.Reject, n) {
		return nil, fmt.Errorf("%w: %s", ErrNoService, readable(name, 300))
	}
	if rule, ok := n.Reaches(v); !ok {
		if len(n.Egress) == 0 {
			rule = "the network has no egress list, so it may only have endpoints to services of its own tenant; add tenant/NAME or the service's alias"
		}
		return nil, fmt.Errorf("%w: network %s may not have endpoints to service %s: %s", ErrEgress, n.ID, name, rule)
	}
	return v, nil
}

// sees reports whether a caller has rights on a service, whatever its lists say.
func (c *Control) sees(caller Caller, service link.ID) bool {
	return c.authorise(caller, c.SubscriptionOf(service), Read) == nil
}

// visibleTo reports whether a network may ask for a service. Its own subscription always may.
func visibleTo(v *link.Service, n *link.Network) bool {
	sub := v.ID.Subscription()
	return matches(v.Visible, n) || sub != "" && sub == n.ID.Subscription()
}

func matches(list []link.Party, n *link.Network) bool {
	return slices.ContainsFunc(list, func(p link.Party) bool { return p.Matches(n) })
}

// VisibleService returns the service of an alias that a network of the subscription may ask for, or
// [ErrNoService]. A subscription without networks is one with a network that no list names.
func (c *Control) VisibleService(caller Caller, subscription, alias string) (*link.Service, error) {
	const action = "service.look-up"
	s, err := c.View(caller, subscription)
	if err == nil {
		err = c.seekers.check(caller, c.config.Now())
	}
	var v *link.Service
	if err == nil {
		v, err = c.visible(s, caller, subscription, alias)
	}
	c.sought(caller, err)
	if err != nil {
		c.metrics.count(action, outcome(Op{}, Result{}, err))
		c.refuse(context.Background(), Op{Caller: caller}, write{action: action, object: "alias", subscription: subscription}, err)
		return nil, err
	}
	return v, nil
}

// visible returns the service of an alias if one network of a subscription may ask for it.
func (c *Control) visible(s *link.Snapshot, caller Caller, subscription, alias string) (*link.Service, error) {
	none := &link.Network{ID: link.ID(subscription + "/./."), Tenant: c.owner(subscription).Name}
	v := s.ServiceByAlias(alias)
	there := v != nil
	if !there {
		v = nobody
	}
	may := c.sees(caller, v.ID) || visibleTo(v, none)
	for _, p := range v.Visible {
		if n := s.Network(link.ID(p)); n != nil && n.ID.Subscription() == subscription && !matches(v.Reject, n) {
			may = true
		}
	}
	if !there || !may || matches(v.Reject, none) {
		return nil, fmt.Errorf("%w: %s", ErrNoService, readable(alias, 300))
	}
	return v, nil
}
