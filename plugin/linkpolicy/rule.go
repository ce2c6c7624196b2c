package linkpolicy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/cel"
)

// Bounds of what one policy may say: each flow goes through it.
const (
	maxRules  = 1000
	maxValues = 1000    // of one condition
	maxLimit  = 1 << 20 // flows, rates and bursts
)

// reserved are the names under which what isn't a rule is reported.
var reserved = []string{policy.DefaultRule, policy.LimitRule}

// addRule adds the rule of one line: NAME [observe] allow|deny [CONDITION...].
func addRule(s *policy.Set, args []string) error {
	if len(s.Rules) == maxRules {
		return fmt.Errorf("policy %s has %d rules already; no more are allowed", s.Name, maxRules)
	}
	id, err := block.ID(args[0])
	if err != nil {
		return err
	}
	r := policy.Rule{Name: string(id)}
	switch {
	case slices.Contains(reserved, r.Name):
		return fmt.Errorf("a rule can't be called %s, which is reported for what no rule has decided", r.Name)
	case slices.ContainsFunc(s.Rules, func(o policy.Rule) bool { return o.Name == r.Name }):
		return fmt.Errorf("rule %s is given already", r.Name)
	}
	args = args[1:]
	if r.Observe = args[0] == "observe"; r.Observe {
		if args = args[1:]; len(args) == 0 {
			return fmt.Errorf("observe is followed by deny")
		}
	}
	verb, err := block.Word(args[0], "allow", "deny")
	if err != nil {
		return err
	}
	if r.Allow = verb == "allow"; r.Allow && r.Observe {
		return fmt.Errorf("observe is for what denies: a rule that allows and isn't enforced would do nothing")
	}
	if err := conditions(&r.Conditions, args[1:]); err != nil {
		return err
	}
	s.Rules = append(s.Rules, r)
	if cost := total(s); cost > cel.MaxTotal {
		return fmt.Errorf("with rule %s the expressions of policy %s may cost %d together; %d are allowed", r.Name, s.Name, cost, cel.MaxTotal)
	}
	return nil
}

// total is what the expressions of a policy may cost together.
func total(s *policy.Set) (cost uint64) {
	for i := range s.Rules {
		for _, e := range s.Rules[i].When {
			cost += cel.Cost(e)
		}
	}
	return cost
}

// condition reads the values of one condition.
type condition struct {
	word string
	set  func(c *policy.Conditions, values []string) error
}

// words are the conditions that there are, in the order of the manual.
var words = []condition{
	{"endpoint", func(c *policy.Conditions, v []string) (err error) {
		c.Endpoints, err = block.List(v, block.Reference)
		return err
	}},
	{"service", func(c *policy.Conditions, v []string) (err error) {
		c.Services, err = block.List(v, block.Reference)
		return err
	}},
	{"tenant", func(c *policy.Conditions, v []string) (err error) {
		c.Tenants, err = block.List(v, tenant)
		return err
	}},
	{"network", func(c *policy.Conditions, v []string) (err error) {
		c.Networks, err = block.List(v, block.Reference)
		return err
	}},
	{"source", func(c *policy.Conditions, v []string) (err error) {
		c.Sources, err = block.List(v, block.Prefix)
		return err
	}},
	{"name", func(c *policy.Conditions, v []string) (err error) {
		c.Names, err = block.List(v, block.Pattern)
		return err
	}},
	{"port", func(c *policy.Conditions, v []string) (err error) {
		c.Ports, err = block.List(v, ports)
		return err
	}},
	{"time", func(c *policy.Conditions, v []string) (err error) {
		c.Times, err = windows(v)
		return err
	}},
	{"when", func(c *policy.Conditions, v []string) error {
		if len(v) != 1 {
			return fmt.Errorf("an expression is one argument: put it in double quotes, and text within it in single ones")
		}
		e, err := cel.Compile(v[0])
		c.When = []policy.Expression{e}
		return err
	}},
}

func conditionOf(word string) int {
	return slices.IndexFunc(words, func(c condition) bool { return c.word == word })
}

// conditions reads all that follows allow or deny. What follows the word of a condition is a value even where
// it is such a word itself, for there may be a service of that name; from the next one on it isn't.
func conditions(c *policy.Conditions, args []string) error {
	seen := make([]bool, len(words))
	for len(args) > 0 {
		word := args[0]
		i := conditionOf(word)
		if i < 0 {
			return fmt.Errorf("unknown condition %s; known are %s", block.Quote(word), knownWords())
		}
		n := 1
		for n < len(args) && (n == 1 || conditionOf(args[n]) < 0) {
			n++
		}
		switch {
		case n == 1:
			return fmt.Errorf("%s is followed by a value", word)
		case n-1 > maxValues:
			return fmt.Errorf("%s has %d values; %d are allowed", word, n-1, maxValues)
		case seen[i]:
			return fmt.Errorf("%s is given twice in the rule; give all values after one of them", word)
		}
		if err := words[i].set(c, args[1:n]); err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
		seen[i], args = true, args[n:]
	}
	return nil
}

func knownWords() string {
	all := make([]string, len(words))
	for i, c := range words {
		all[i] = c.word
	}
	return strings.Join(all, ", ")
}

func tenant(s string) (string, error) {
	if len(s) > 255 || strings.ContainsAny(s, "/*") {
		return "", fmt.Errorf("%s is not the name of a tenant", block.Quote(s))
	}
	return s, nil
}

// ports parses N or N-M.
func ports(s string) (policy.PortRange, error) {
	first, last, is := strings.Cut(s, "-")
	if !is {
		last = first
	}
	a, err := block.Port(first)
	if err != nil {
		return policy.PortRange{}, err
	}
	b, err := block.Port(last)
	if err == nil && b < a {
		err = fmt.Errorf("ports %s end before they begin", block.Quote(s))
	}
	return policy.PortRange{First: a, Last: b}, err
}

// addLimit adds the limit of one line: endpoint|source [flows N] [rate N/s|N/m] [burst N].
func addLimit(s *policy.Set, args []string) error {
	per, err := block.Word(args[0], "endpoint", "source")
	if err != nil {
		return err
	}
	l := policy.FlowLimit{PerSource: per == "source"}
	seen := map[string]bool{}
	for args = args[1:]; len(args) > 0; args = args[2:] {
		word, err := block.Word(args[0], "flows", "rate", "burst")
		switch {
		case err != nil:
			return err
		case seen[word]:
			return fmt.Errorf("%s is given twice", word)
		case len(args) == 1:
			return fmt.Errorf("%s is followed by a number", word)
		}
		seen[word] = true
		switch word {
		case "flows":
			l.Flows, err = block.Int(args[1], 1, maxLimit)
		case "rate":
			l.Rate, l.Every, err = rate(args[1])
		case "burst":
			l.Burst, err = block.Int(args[1], 1, maxLimit)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case seen["burst"] && !seen["rate"]:
		return fmt.Errorf("burst is of a rate, and there is none")
	case slices.Contains(s.Limits, l):
		return fmt.Errorf("the same limit is given already")
	}
	s.Limits = append(s.Limits, l)
	return nil
}

// rate parses N/s or N/m.
func rate(s string) (int, time.Duration, error) {
	count, unit, _ := strings.Cut(s, "/")
	every, ok := map[string]time.Duration{"s": time.Second, "m": time.Minute}[unit]
	if _, err := strconv.Atoi(count); err != nil || !ok {
		return 0, 0, fmt.Errorf("%s is not a rate; one looks like 20/s or 100/m", block.Quote(s))
	}
	n, err := block.Int(count, 1, maxLimit)
	return n, every, err
}
