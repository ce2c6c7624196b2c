package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// Linearizable has clients approve, reject and read one connection through the stores, all of one state, and
// checks with porcupine that what they saw is what one register would have shown, and that the order of
// the audit record is that of the decisions (A07). Faults that disturb the stores are the caller's; a commit whose
// outcome stays unknown may have happened at any time after it began, or never.
func Linearizable(t *testing.T, stores []store.Store, clients, each int) {
	t.Helper()
	endpoint := connection(t, stores[0])
	var mu sync.Mutex
	var history []porcupine.Operation
	begin := time.Now()
	since := func() int64 { return time.Since(begin).Nanoseconds() }
	var wg sync.WaitGroup
	for client := range clients {
		r := rand.New(rand.NewPCG(1, uint64(client)))
		wg.Go(func() {
			s := stores[client%len(stores)]
			for range each {
				in := []link.State{"", link.Approved, link.Rejected}[r.IntN(3)]
				for {
					call := since()
					out, err := decide(t, s, endpoint, in)
					if errors.Is(err, store.ErrConflict) {
						continue // it did nothing; the next try is another operation
					}
					if err == nil || out.unknown {
						mu.Lock()
						history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: since()})
						mu.Unlock()
					}
					break
				}
			}
		})
	}
	wg.Wait()
	done := since()
	known := 0
	for i := range history {
		if history[i].Output.(observed).unknown {
			// It may land after the client has been told, and the client goes on: to the checker it is another one.
			history[i].Return, history[i].ClientId = done+1, clients+i
		} else {
			known++
		}
	}
	if known < clients*each/2 {
		t.Errorf("%d of %d operations have a known outcome: it tests little", known, clients*each)
	}
	if got := porcupine.CheckOperationsTimeout(register, history, 30*time.Second); got != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %s", len(history), got)
	}
	checkOrder(t, stores[0], endpoint)
}

// observed is what one operation saw: the revision and state that it was decided on.
type observed struct {
	seen    version
	unknown bool // whether it happened
}

type version struct {
	revision uint64
	state    link.State
}

// register is the model: a connection is a register of its state, and the revision counts what was written. Input
// "" reads it. There is one winner a revision.
var register = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{version{1, link.Pending}} },
	Step: func(state, input, output any) []any {
		was, in, out := state.(version), input.(link.State), output.(observed)
		next := version{was.revision + 1, in}
		switch {
		case out.unknown && (in == "" || in == was.state || out.seen != was):
			return []any{was}
		case out.unknown:
			return []any{was, next}
		case out.seen != was:
			return nil
		case in == "" || in == was.state:
			return []any{was}
		}
		return []any{next}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%q saw %v", input, output) },
}).ToModel()

// decide does one operation with a time limit of its own. It doesn't decide again after a conflict, so that an
// operation of the history is short: that is what makes it cheap to check.
func decide(t *testing.T, s store.Store, endpoint link.ID, to link.State) (observed, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	base, err := s.Load(ctx)
	if err != nil {
		return observed{}, err
	}
	c := base.Endpoint(endpoint).Connection
	out := observed{seen: version{base.Revision(), c.State}}
	if to == "" || to == c.State {
		return out, nil
	}
	e := Entry(1)
	e.Object, e.Reason = string(to), string(c.State)
	_, err = s.Commit(ctx, base, e, link.Decide{Endpoint: endpoint, LinkID: c.LinkID, State: to})
	if errors.Is(err, store.ErrUnknownOutcome) {
		_, found, findErr := store.Find(t.Context(), s, e.ID, base.Revision()+1)
		if found {
			return out, nil
		}
		out.unknown, err = true, errors.Join(err, findErr)
	}
	return out, err
}

// connection makes an endpoint whose connection is Pending.
func connection(t *testing.T, s store.Store) link.ID {
	t.Helper()
	n := Network(1)
	v := link.Service{
		ID: "linear", Tenant: n.Tenant, Alias: "linear.alias", Port: 443, Targets: []link.Target{{Addr: netip.MustParseAddrPort("192.0.2.1:443")}},
		Visible: []link.Party{link.Anyone}, Pin: link.PinAddress, ProxyProtocol: link.ProxyOff,
	}
	e := link.Endpoint{ID: "linear", Tenant: n.Tenant, Network: n.ID, Service: v.ID}
	commit(t, s, 0, link.PutNetwork{Network: n}, link.PutService{Service: v}, link.PutEndpoint{Endpoint: e})
	return e.ID
}

// checkOrder: each decision in the audit record was made on the state that the one before it left.
func checkOrder(t *testing.T, s store.Store, endpoint link.ID) {
	t.Helper()
	state := link.Pending
	for _, e := range audit(t, s, 2) {
		if link.State(e.Reason) != state {
			t.Fatalf("revision %d was decided on %s, it was %s", e.Revision, e.Reason, state)
		}
		state = link.State(e.Object)
	}
	if got := load(t, s).Endpoint(endpoint).Connection.State; got != state {
		t.Errorf("the connection is %s, the audit record says %s", got, state)
	}
}
