//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// sample is what one run of one server in one test gave.
type sample struct {
	Round  int                `json:"round"`
	Test   string             `json:"test"`
	Server string             `json:"server"`
	Values map[string]float64 `json:"values,omitempty"`
	Others float64            `json:"others"` // CPUs that other work on the machine used meanwhile
	Tries  int                `json:"tries"`  // runs it took; those before the last were disturbed
	Err    string             `json:"err,omitempty"`
}

// better says which way a figure is better.
type better int

const (
	neither better = iota
	higher
	lower
)

// column is one figure of a test.
type column struct {
	key    string // in sample.Values
	head   string
	scale  float64 // the value is divided by it, for people; 0: 1
	digits int     // behind the decimal point
	better better  // neither: no ratio is shown
}

// test is one table: the same work for each server.
type test struct {
	name     string // in sample.Test
	title    string
	baseline string // the server that ratios are to
	columns  []column
	// saturates: the load asks for all that the server can give, so a server that had CPU time left
	// was held back by the load, and its figure is a floor.
	saturates bool
}

// A server that used less of its core than this wasn't the limit of a saturating test.
const saturated = 0.9

// spread is a median with the range that it was taken from. n is 0 when there was nothing.
type spread struct {
	median, min, max float64
	n                int
}

// spreadOf returns the spread of values, which it sorts.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	mid := len(values) / 2
	m := values[mid]
	if len(values)%2 == 0 {
		m = (values[mid-1] + values[mid]) / 2
	}
	return spread{median: m, min: values[0], max: values[len(values)-1], n: len(values)}
}

// results are the samples of a whole run.
type results []sample

// find returns the sample of a round that succeeded.
func (r results) find(round int, test, server string) (sample, bool) {
	for _, s := range r {
		if s.Round == round && s.Test == test && s.Server == server && s.Err == "" {
			return s, true
		}
	}
	return sample{}, false
}

// values returns the spread of a figure over the rounds.
func (r results) values(test, server, key string) spread {
	var vs []float64
	for _, s := range r {
		if s.Test != test || s.Server != server || s.Err != "" {
			continue
		}
		if v, ok := s.Values[key]; ok {
			vs = append(vs, v)
		}
	}
	return spreadOf(vs)
}

// ratio returns the spread, over the rounds, of server to the best of others in the same round. Above 1 is
// better than all of them, whichever way the figure itself is better.
func (r results) ratio(test, server string, c column, others ...string) spread {
	var vs []float64
	for _, s := range r {
		if s.Test != test || s.Server != server || s.Err != "" {
			continue
		}
		least := math.Inf(1)
		for _, other := range others {
			if base, ok := r.find(s.Round, test, other); ok {
				least = min(least, quotient(s, base, c))
			}
		}
		if !math.IsInf(least, 0) {
			vs = append(vs, least)
		}
	}
	return spreadOf(vs)
}

// quotient compares a figure of two samples. It is infinite where it can't.
func quotient(s, base sample, c column) float64 {
	a, aok := s.Values[c.key]
	b, bok := base.Values[c.key]
	if c.better == lower {
		a, b = b, a
	}
	if q := a / b; aok && bok && !math.IsNaN(q) {
		return q
	}
	return math.Inf(1)
}

// servers returns the servers of a test in the order they first appear.
func (r results) servers(test string) []string {
	var names []string
	for _, s := range r {
		if s.Test == test && !slices.Contains(names, s.Server) {
			names = append(names, s.Server)
		}
	}
	return names
}

// table writes a test as Markdown.
func (t test) table(r results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| server |", t.title)
	rule := "|---|"
	for _, c := range t.columns {
		fmt.Fprintf(&b, " %s |", c.head)
		rule += "---|"
		if c.better != neither {
			b.WriteString(" ratio (range) |")
			rule += "---|"
		}
	}
	fmt.Fprintf(&b, " notes |\n%s---|\n", rule)
	for _, server := range r.servers(t.name) {
		fmt.Fprintf(&b, "| %s |", server)
		for i, c := range t.columns {
			mark := ""
			if i == 0 && t.heldBack(r, server) {
				mark = "*"
			}
			fmt.Fprintf(&b, " %s |", c.cell(r.values(t.name, server, c.key), mark))
			if c.better != neither {
				fmt.Fprintf(&b, " %s |", ratioCell(r.ratio(t.name, server, c, t.baseline)))
			}
		}
		fmt.Fprintf(&b, " %s |\n", r.notes(t.name, server))
	}
	return b.String()
}

// heldBack reports whether the load, not the server, was the limit.
func (t test) heldBack(r results, server string) bool {
	busy := r.values(t.name, server, keyServerCPU)
	return t.saturates && busy.n > 0 && busy.median < saturated
}

func (c column) cell(s spread, mark string) string {
	if s.n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f%s", c.digits, s.median/c.unit(), mark)
}

// unit returns what a value is divided by when it is shown.
func (c column) unit() float64 {
	if c.scale == 0 {
		return 1
	}
	return c.scale
}

func ratioCell(s spread) string {
	if s.n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median, s.min, s.max)
}

// notes says what a reader must know about the runs of one server.
func (r results) notes(test, server string) string {
	var notes []string
	disturbed, failed, lost, reason := 0, 0, 0.0, ""
	for _, s := range r {
		if s.Test != test || s.Server != server {
			continue
		}
		if s.Err != "" {
			failed++
			reason = s.Err
			continue
		}
		if s.Others > disturbance {
			disturbed++
		}
		lost += s.Values[keyLost]
	}
	if failed > 0 {
		notes = append(notes, fmt.Sprintf("%d failed: %s", failed, strings.ReplaceAll(reason, "|", "/")))
	}
	if lost > 0 {
		notes = append(notes, fmt.Sprintf("%.0f lost or wrong", lost))
	}
	if disturbed > 0 {
		notes = append(notes, fmt.Sprintf("%d disturbed", disturbed))
	}
	return strings.Join(notes, "; ")
}

// goal is a promise that the figures are held against.
type goal struct {
	text   string
	test   string
	server string
	column column
	// against: the ratio to the best of them must be at least bound. Without them, the median must be at most bound,
	// which is in the unit that the column shows.
	against []string
	bound   float64
}

// verdict returns a line for the report: met, NOT MET or not measured, and the figure.
func (g goal) verdict(r results) string {
	if len(g.against) > 0 {
		s := r.ratio(g.test, g.server, g.column, g.against...)
		return verdictLine(g.text, s, s.median >= g.bound, ratioCell(s))
	}
	s := r.values(g.test, g.server, g.column.key)
	return verdictLine(g.text, s, s.median/g.column.unit() <= g.bound, g.column.cell(s, ""))
}

func verdictLine(text string, s spread, ok bool, figure string) string {
	switch {
	case s.n == 0:
		return fmt.Sprintf("- not measured: %s", text)
	case ok:
		return fmt.Sprintf("- met: %s: %s", text, figure)
	default:
		return fmt.Sprintf("- NOT MET: %s: %s", text, figure)
	}
}
