package link

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestStates walks every edge of the state machine, and those that there aren't.
func TestStates(t *testing.T) {
	bob := Decision{Actor: "bob", Reason: "because"}
	type step struct {
		change func(LinkID) Change
		want   State
		err    error
	}
	approve := func(id LinkID) Change { return Decide{Endpoint: "sql-lab", LinkID: id, State: Approved, Decision: bob} }
	reject := func(id LinkID) Change { return Decide{Endpoint: "sql-lab", LinkID: id, State: Rejected, Decision: bob} }
	remove := func(id LinkID) Change { return Disconnect{"sql-lab", id, bob} }
	suspend := func(id LinkID) Change { return Suspend{"sql-lab", id, bob} }
	resume := func(id LinkID) Change { return Resume{"sql-lab", id, bob} }
	again := func(LinkID) Change { return AskAgain{Endpoint: "sql-lab"} }
	drop := func(LinkID) Change { return DeleteService{"sql", true} }
	stale := func(id LinkID) Change {
		return Decide{Endpoint: "sql-lab", LinkID: id + 1, State: Approved, Decision: bob}
	}
	for name, steps := range map[string][]step{
		"approve":                        {{approve, Approved, nil}},
		"reject":                         {{reject, Rejected, nil}},
		"approve, reject, approve":       {{approve, Approved, nil}, {reject, Rejected, nil}, {approve, Approved, nil}},
		"approve twice":                  {{approve, Approved, nil}, {approve, Approved, nil}},
		"remove from Pending":            {{remove, Disconnected, nil}},
		"remove from Approved":           {{approve, Approved, nil}, {remove, Disconnected, nil}},
		"remove from Rejected":           {{reject, Rejected, nil}, {remove, Disconnected, nil}},
		"service deleted":                {{approve, Approved, nil}, {drop, Disconnected, nil}},
		"ask again from Disconnected":    {{remove, Disconnected, nil}, {again, Pending, nil}, {approve, Approved, nil}},
		"ask again from Pending":         {{again, Pending, ErrConflict}},
		"ask again from Rejected":        {{reject, Rejected, nil}, {again, Rejected, ErrConflict}},
		"ask again of a deleted service": {{drop, Disconnected, nil}, {again, Disconnected, ErrNotFound}},
		"decide when Disconnected":       {{remove, Disconnected, nil}, {approve, Disconnected, ErrStale}},
		"A20 decide on another link ID":  {{stale, Pending, ErrStale}},
		"suspend and resume":             {{approve, Approved, nil}, {suspend, Approved, nil}, {resume, Approved, nil}},
		"suspend when Pending":           {{suspend, Pending, ErrConflict}},
		"resume what isn't suspended":    {{approve, Approved, nil}, {resume, Approved, nil}},
		"reject when suspended":          {{approve, Approved, nil}, {suspend, Approved, nil}, {reject, Rejected, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			s := must(t, world(t), endpoint("sql-lab", "lab", "sql"))
			for i, step := range steps {
				before := s.Endpoint("sql-lab").Connection
				next, _, err := s.Apply(noon.Add(time.Minute), step.change(before.LinkID))
				if !errors.Is(err, step.err) {
					t.Fatalf("step %d: error %v, want %v", i, err, step.err)
				}
				if err == nil {
					verify(t, next)
					s = next
				}
				if now := s.Endpoint("sql-lab").Connection; now.State != step.want {
					t.Fatalf("step %d: state %s, want %s", i, now.State, step.want)
				}
			}
		})
	}
}

func TestDecisionIsKept(t *testing.T) {
	s := must(t, world(t), endpoint("sql-lab", "lab", "sql"))
	e := s.Endpoint("sql-lab")
	at := noon.Add(time.Hour)
	s, _, err := s.Apply(at, Decide{Endpoint: e.ID, LinkID: e.Connection.LinkID, State: Approved, Decision: Decision{Actor: "bob", Reason: "ticket 7"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Endpoint("sql-lab").Connection.Decision, (Decision{Actor: "bob", Reason: "ticket 7", At: at}); got != want {
		t.Errorf("decision %+v, want %+v", got, want)
	}
	if got, want := s.Endpoint("sql-corp").Connection.Decision.Rule, "auto-approve: corp"; got != want {
		t.Errorf("rule %q, want %q", got, want)
	}
}

// TestSameDecisionInOtherWords: the words and whose they are change, and nothing that flows depend on.
func TestSameDecisionInOtherWords(t *testing.T) {
	for _, state := range []State{Approved, Rejected} {
		s := must(t, world(t), endpoint("sql-lab", "lab", "sql"))
		id := s.Endpoint("sql-lab").Connection.LinkID
		decide := func(at time.Time, lasting bool, d Decision) (Connection, int) {
			t.Helper()
			next, deltas, err := s.Apply(at, Decide{Endpoint: "sql-lab", LinkID: id, State: state, Lasting: lasting, Decision: d})
			if err != nil {
				t.Fatal(err)
			}
			s = next
			return s.Endpoint("sql-lab").Connection, len(deltas)
		}
		first, _ := decide(noon, false, Decision{Actor: "bob", Reason: "ticket 7"})
		later := noon.Add(time.Hour)
		for name, d := range map[string]Decision{"the same": {Actor: "bob", Reason: "ticket 7"}, "by another": {Actor: "eve", Reason: "ticket 7"}, "no words": {Actor: "eve"}} {
			if k, n := decide(later, false, d); n != 0 || k != first {
				t.Errorf("%s again, %s: %d deltas, %+v", state, name, n, k)
			}
		}
		k, n := decide(later, false, Decision{Actor: "eve", Reason: "ticket 8"})
		want := first
		want.Decision = Decision{Actor: "eve", Reason: "ticket 8", At: later}
		if n != 1 || k != want {
			t.Errorf("%s in other words: %d deltas, %+v, want %+v", state, n, k, want)
		}
		if state == Approved {
			k, n = decide(later, true, Decision{Actor: "bob"})
			if want.Lasting, want.Decision.Actor = true, "bob"; n != 1 || k != want {
				t.Errorf("approved for later: %d deltas, %+v, want %+v", n, k, want)
			}
		}
	}
	// One that is suspended stays so.
	s := world(t)
	k := s.Endpoint("sql-corp").Connection
	s = must(t, s, Suspend{"sql-corp", k.LinkID, Decision{Actor: "bob"}}, Decide{Endpoint: "sql-corp", LinkID: k.LinkID, State: Approved, Decision: Decision{Actor: "bob", Reason: "x"}})
	if k := s.Endpoint("sql-corp").Connection; k.Suspended == nil || k.Decision.Reason != "x" {
		t.Errorf("suspended, and approved in other words: %+v", k)
	}
}

func TestSuspendedIsNotLive(t *testing.T) {
	s := world(t)
	e := s.Endpoint("sql-corp")
	s = must(t, s, Suspend{e.ID, e.Connection.LinkID, Decision{Actor: "bob"}})
	if s.Endpoint(e.ID).Connection.Live() || s.HasZone("corp", []byte("privatelink.database.windows.net")) {
		t.Error("a suspended connection is live")
	}
	s = must(t, s, Resume{e.ID, e.Connection.LinkID, Decision{Actor: "bob"}})
	if c := s.Endpoint(e.ID).Connection; !c.Live() || c.LinkID != e.Connection.LinkID {
		t.Errorf("X36: after resume %+v, want live with link ID %s", c, e.Connection.LinkID)
	}
}

// TestAskAgain: same address, same names, new link ID.
func TestAskAgain(t *testing.T) {
	s := world(t)
	before := s.Endpoint("sql-corp")
	s = must(t, s, Disconnect{before.ID, before.Connection.LinkID, Decision{Actor: "bob"}})
	s = must(t, s, AskAgain{Endpoint: before.ID, Message: "please"})
	after := s.Endpoint("sql-corp")
	if after.Address != before.Address || after.Connection.LinkID == before.Connection.LinkID || after.Connection.Asked != 2 || after.Connection.Message != "please" {
		t.Errorf("asked again: %+v, before %+v", after, before)
	}
}

func TestLists(t *testing.T) {
	with := func(f func(*Service)) PutService {
		v := service("sql", "contoso")
		f(&v)
		return PutService{Service: v}
	}
	for name, tt := range map[string]struct {
		service PutService
		want    State
		err     error
	}{
		"A23 nobody sees it":           {with(func(v *Service) { v.Visible = nil }), "", ErrNotFound},
		"visible to another network":   {with(func(v *Service) { v.Visible = []Party{"corp"} }), "", ErrNotFound},
		"visible":                      {with(func(v *Service) { v.Visible = []Party{"lab"} }), Pending, nil},
		"A23 anyone":                   {with(func(v *Service) { v.AutoApprove = []Party{Anyone} }), Approved, nil},
		"approved by network":          {with(func(v *Service) { v.AutoApprove = []Party{"lab"} }), Approved, nil},
		"approved by tenant":           {with(func(v *Service) { v.AutoApprove = []Party{"tenant/acme"} }), Approved, nil},
		"of another tenant":            {with(func(v *Service) { v.AutoApprove = []Party{"tenant/other"} }), Pending, nil},
		"A23 reject list wins":         {with(func(v *Service) { v.AutoApprove, v.Reject = []Party{"lab"}, []Party{"tenant/acme"} }), "", ErrNotFound},
		"approved but over the limit":  {with(func(v *Service) { v.AutoApprove, v.MaxConnections = []Party{Anyone}, 1 }), Pending, nil},
		"A23 approved and not visible": {with(func(v *Service) { v.Visible, v.AutoApprove = []Party{"corp"}, []Party{"lab"} }), "", ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			lab := network("lab", "10.2.0.0/16", "10.201.0.0/24")
			lab.Tenant, lab.Egress = "acme", []string{"*"}
			request := endpoint("sql-lab", "lab", "sql")
			request.Endpoint.Tenant = "acme"
			s := must(t, Empty(), PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")}, PutNetwork{lab})
			if tt.service.Service.MaxConnections > 0 {
				s = must(t, s, tt.service, endpoint("first", "corp", "sql"))
			}
			s, _, err := s.Apply(noon, tt.service, request)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && s.Endpoint("sql-lab").Connection.State != tt.want {
				t.Errorf("connection %+v, want %s", s.Endpoint("sql-lab").Connection, tt.want)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	v := service("sql", "contoso", Anyone)
	v.MaxConnections = 1
	s := must(t, Empty(), PutNetwork{network("corp", "10.1.0.0/16", "10.200.0.0/24")}, PutService{Service: v},
		endpoint("a", "corp", "sql"), endpoint("b", "corp", "sql"))
	b := s.Endpoint("b").Connection
	if b.State != Pending || !strings.Contains(b.Decision.Reason, "limit of 1") {
		t.Errorf("over the limit: %+v, want Pending with the limit as its reason", b)
	}
	if _, _, err := s.Apply(noon, Decide{Endpoint: "b", LinkID: b.LinkID, State: Approved, Decision: Decision{Actor: "bob"}}); !errors.Is(err, ErrExhausted) {
		t.Errorf("approve over the limit: %v, want %v", err, ErrExhausted)
	}
	v.MaxConnections = 2
	s = must(t, s, PutService{Service: v})
	if c := s.Endpoint("b").Connection; c.State != Approved {
		t.Errorf("after the limit was raised: %+v, want Approved", c)
	}
}

func TestLinkIDs(t *testing.T) {
	s := world(t)
	first := s.Endpoint("sql-corp").Connection.LinkID
	if again := world(t).Endpoint("sql-corp").Connection.LinkID; again != first {
		t.Errorf("the same world gives link ID %s and %s", first, again)
	}
	ask := at("sql-corp", "corp", "sql", "10.200.0.5")
	s = must(t, s, DeleteEndpoint{"sql-corp"})
	early, _, err := s.Apply(noon.Add(LinkIDRest-time.Second), ask)
	if err != nil {
		t.Fatal(err)
	}
	if id := early.Endpoint("sql-corp").Connection.LinkID; id == first {
		t.Errorf("link ID %s was given out again before %s", id, LinkIDRest)
	}
	late, _, err := s.Apply(noon.Add(LinkIDRest), ask)
	if err != nil {
		t.Fatal(err)
	}
	if id := late.Endpoint("sql-corp").Connection.LinkID; id != first {
		t.Errorf("link ID %s after %s, want %s again", id, LinkIDRest, first)
	}
}

// TestRetiredGoes: what rests doesn't grow without bound.
func TestRetiredGoes(t *testing.T) {
	s := world(t)
	for i := range 40 {
		now := noon.Add(time.Duration(i) * 24 * time.Hour)
		var err error
		for _, c := range []Change{endpoint("x", "corp", "sql"), DeleteEndpoint{"x"}} {
			if s, _, err = s.Apply(now, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	for o := range s.Objects() {
		if o.Kind() == KindRetired {
			n++
		}
	}
	if n > 8 {
		t.Errorf("%d link IDs rest after one a day, want a week's", n)
	}
}
