package policy

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
)

// oracle is an expression that answers by a hash of what it uses: true, false or an error, always the same.
type oracle struct {
	uses Uses
	salt uint64
}

var oracleSeed = maphash.MakeSeed()

func (o oracle) Uses() Uses     { return o.uses }
func (o oracle) String() string { return fmt.Sprint("oracle ", o.salt) }

func (o oracle) Holds(f Facts) (bool, error) {
	known := []any{o.salt, f.Source.Addr()}
	if o.uses&UsesName != 0 {
		known = append(known, f.Name)
	}
	if o.uses&UsesTime != 0 {
		known = append(known, f.At.Unix())
	}
	switch maphash.String(oracleSeed, fmt.Sprint(known...)) % 7 {
	case 0:
		return false, fmt.Errorf("the oracle is silent")
	case 1, 2, 3:
		return true, nil
	}
	return false, nil
}

// askedNames are the names that a client may come with: of the service, others, and none.
var askedNames = []link.Name{"allowed.example", "a.wild.example", "b.wild.example", "other.example", ""}

func randomPolicy(r *rand.Rand) *Policy {
	pick := func(of int) bool { return r.IntN(of) == 0 }
	p := &Policy{}
	for i := range 1 + r.IntN(3) {
		s := Set{Name: fmt.Sprint("s", i), Default: Default(r.IntN(4))}
		for j := range r.IntN(5) {
			rule := Rule{Name: fmt.Sprint("r", j), Allow: pick(2)}
			rule.Observe = !rule.Allow && pick(3)
			if pick(3) {
				rule.Sources = []netip.Prefix{netip.MustParsePrefix([]string{"10.1.2.0/24", "10.1.3.0/24"}[r.IntN(2)])}
			}
			if pick(4) {
				rule.Services = []link.ID{[]link.ID{"web", "sql"}[r.IntN(2)]}
			}
			if pick(3) {
				rule.Names = []link.Name{[]link.Name{"allowed.example", "*.wild.example", "other.example"}[r.IntN(3)]}
			}
			if pick(4) {
				from := r.IntN(23)
				rule.Times = []Window{{From: from * 60, To: (from + 1 + r.IntN(24-from)) * 60}}
			}
			if pick(3) {
				rule.When = append(rule.When, oracle{uses: Uses(r.IntN(4)), salt: r.Uint64()})
			}
			s.Rules = append(s.Rules, rule)
		}
		p.Sets = append(p.Sets, s)
	}
	return p
}

// G05: what is denied before the name is known would be denied for every name, by the same rule where no set
// waits for the name before it; and what no set waits for is allowed for every name that the state allows.
func TestEarlyHoldsForEveryName(t *testing.T) {
	s := base(t)
	denied, allowed, waits := 0, 0, 0
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 5))
		p, ask := randomPolicy(r), web("")
		ask.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(2 + r.IntN(2)), byte(r.IntN(4))}), 40000)
		ask.At = at.Add(time.Duration(r.IntN(24*60)) * time.Minute)
		early := p.Decide(s, ask)
		open := slices.ContainsFunc(p.Find(s, ask), func(f Finding) bool { return f.Unjudged })
		if open && early.Allow {
			waits++
			continue
		}
		for _, name := range askedNames {
			full := ask
			full.Judged, full.Name = true, name
			if !Decide(s, full).Allow {
				continue // the state's no is not the rules' to give
			}
			late := p.Decide(s, full)
			switch {
			case early.Allow:
				allowed++
			default:
				denied++
			}
			if late.Allow != early.Allow {
				t.Fatalf("seed %d: %v before the name, %v for %q by %q: %+v", seed, early.Allow, late.Allow, name, early.Rule+late.Rule, p)
			}
			if !early.Allow && !open && (late.Rule != early.Rule || late.Reason != early.Reason || late.Refused != early.Refused) {
				t.Fatalf("seed %d: %q before the name, %q for %q: %+v", seed, early.Rule, late.Rule, name, p)
			}
			for _, o := range early.Observed {
				if !open && !slices.Contains(late.Observed, o) {
					t.Fatalf("seed %d: %s on trial is noted before the name, and not for %q", seed, o, name)
				}
			}
		}
	}
	if denied < 500 || allowed < 500 || waits < 500 {
		t.Errorf("%d denied, %d allowed, %d wait: the policies are too poor", denied, allowed, waits)
	}
}
