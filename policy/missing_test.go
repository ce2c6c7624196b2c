package policy

import (
	"slices"
	"testing"

	"github.com/postern-link/postern/link"
)

// What a rule names and isn't there is found, also beside what is; what is there isn't.
func TestMissing(t *testing.T) {
	s := base(t)
	p := one(DefaultAllow,
		deny("there", Conditions{Endpoints: []link.ID{"sql-corp"}, Services: []link.ID{"sql"}, Networks: []link.ID{"corp"}}),
		deny("typo", Conditions{Services: []link.ID{"sql", "slq"}, Networks: []link.ID{"crop"}}),
		observe("trial", Conditions{Endpoints: []link.ID{"gone"}}))
	want := []Missing{{"p", "typo", link.KindService, "slq"}, {"p", "typo", link.KindNetwork, "crop"}, {"p", "trial", link.KindEndpoint, "gone"}}
	if got := p.Missing(s); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if v := p.Decide(s, sql()); v.Allow || v.Rule != "policy p/there" {
		t.Errorf("allow %v, rule %q", v.Allow, v.Rule)
	}
	var none *Policy
	if got := none.Missing(s); got != nil {
		t.Errorf("without a policy: %v", got)
	}
	if got := p.Missing(link.Empty()); len(got) != 7 {
		t.Errorf("%d of 7 in an empty state: %v", len(got), got)
	}
}
