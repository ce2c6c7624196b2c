package linkpolicy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-link/postern/policy"
)

// What a rule is written as in a Corefile reads back as the same rule: String is for people and for the tests
// of the parser.
func TestRuleReadsBack(t *testing.T) {
	for _, text := range []string{
		"rule r allow",
		"rule r observe deny source 10.0.0.0/8 fd00::/8",
		"rule r deny endpoint a b/c/d service s tenant t network n source 10.0.0.0/8 name a.example *.b.example port 1 2-3 time 08:00-18:00",
		"rule r deny time 08:00-18:00 mon tue wed thu fri Europe/Berlin 22:00-06:00 sat sun",
		"rule r deny time 00:00-24:00 sun",
		"rule r deny when port==443",
	} {
		var s policy.Set
		if err := addRule(&s, strings.Fields(text)[1:]); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := strings.ReplaceAll(s.Rules[0].String(), `"`, ""); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
}

// X27: what the expressions of a policy cost together is bounded, however many rules they are in.
func TestExpressionsTogether(t *testing.T) {
	s := policy.Set{Name: "p"}
	var err error
	for i := 0; err == nil && i < maxRules; i++ {
		err = addRule(&s, []string{fmt.Sprint("r", i), "deny", "when", "name.matches('^c[a-z]+[.]database[.]')"})
	}
	if err == nil || !strings.Contains(err.Error(), "together") || len(s.Rules) < 50 {
		t.Errorf("after %d rules: %v", len(s.Rules), err)
	}
	s = policy.Set{Name: "p"}
	for i := range maxRules {
		if err := addRule(&s, []string{fmt.Sprint("r", i), "deny", "when", "cidr('10.9.0.0/16').containsIP(source)"}); err != nil {
			t.Fatalf("simple rule %d: %v", i, err)
		}
	}
}

// C09, G-class: whatever stands on a line, the parser returns, and what it takes says the same when it is
// read again.
func FuzzRule(f *testing.F) {
	for _, s := range []string{
		"r allow", "r observe deny source 10.0.0.0/8", "r deny time 22:00-06:00 fri-mon Europe/Berlin 1:2", "r deny port 1-0",
		"r deny when true", "r deny service time time 00:00-24:00", "r deny name *.a.example tenant x", "observe observe observe", "r deny time 00:00-00:00 UTC",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		if len(args) < 2 {
			return // the table of the directive has refused it
		}
		var s, again policy.Set
		if err := addRule(&s, args); err != nil {
			return
		}
		if len(s.Rules[0].When) > 0 {
			return // with its quotes it is one word, which Fields doesn't know
		}
		text := s.Rules[0].String()
		if err := addRule(&again, strings.Fields(text)[1:]); err != nil {
			t.Fatalf("%q became %q: %v", line, text, err)
		}
		if got := again.Rules[0].String(); got != text {
			t.Errorf("%q became %q, and that %q", line, text, got)
		}
	})
}

func FuzzLimit(f *testing.F) {
	for _, s := range []string{"source flows 1", "endpoint rate 20/s burst 5", "source rate 1/h", "source burst", "endpoint flows 1 rate 1/m burst 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		if len(args) < 3 || len(args) > 7 {
			return
		}
		var s, again policy.Set
		if addLimit(&s, args) != nil {
			return
		}
		text := s.Limits[0].String()
		if err := addLimit(&again, strings.Fields(text)[1:]); err != nil || !slices.Equal(s.Limits, again.Limits) {
			t.Errorf("%q became %q: %v", line, text, err)
		}
	})
}
