//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		want   spread
	}{
		{"nothing", nil, spread{}},
		{"one", []float64{3}, spread{3, 3, 3, 1}},
		{"odd, unsorted", []float64{9, 1, 4}, spread{4, 1, 9, 3}},
		{"even takes the middle of two", []float64{1, 10, 2, 4}, spread{3, 1, 10, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := spreadOf(c.values); got != c.want {
				t.Errorf("spreadOf(%v) = %+v, want %+v", c.values, got, c.want)
			}
		})
	}
}

// rounds is a run in which the machine became twice as fast after the first round.
var rounds = results{
	{Round: 0, Test: "t", Server: "base", Values: map[string]float64{"rate": 100, "cost": 10, keyServerCPU: 0.99}},
	{Round: 0, Test: "t", Server: "ours", Values: map[string]float64{"rate": 300, "cost": 2, keyServerCPU: 0.5}},
	{Round: 1, Test: "t", Server: "ours", Values: map[string]float64{"rate": 500, "cost": 1, keyServerCPU: 0.4}, Others: 0.4},
	{Round: 1, Test: "t", Server: "base", Values: map[string]float64{"rate": 200, "cost": 5, keyServerCPU: 1}},
	{Round: 2, Test: "t", Server: "base", Err: "it fell | over"},
	{Round: 2, Test: "t", Server: "ours", Values: map[string]float64{"rate": 900, "cost": 9, keyServerCPU: 0.5, keyLost: 7}},
	{Round: 0, Test: "other", Server: "base", Values: map[string]float64{"rate": 1}},
}

// Ratios compare within a round, so the drift between rounds doesn't show, and a round in which the
// baseline failed counts for nothing.
func TestRatioWithinTheRound(t *testing.T) {
	for _, c := range []struct {
		name   string
		column column
		want   spread
	}{
		{"higher is better", column{key: "rate", better: higher}, spread{2.75, 2.5, 3, 2}},
		{"lower is better", column{key: "cost", better: lower}, spread{5, 5, 5, 2}},
		{"a figure that nobody has", column{key: "none", better: higher}, spread{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rounds.ratio("t", "ours", "base", c.column); got != c.want {
				t.Errorf("ratio = %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	tt := test{name: "t", title: "Title", baseline: "base", saturates: true, columns: []column{
		{key: "rate", head: "k/s", scale: 1e3, digits: 2, better: higher},
		{key: "absent", head: "absent"},
	}}
	want := `### Title

| server | k/s | ratio (range) | absent | notes |
|---|---|---|---|---|
| base | 0.15 | 1.00 (1.00-1.00) | - | 1 failed: it fell / over |
| ours | 0.50* | 2.75 (2.50-3.00) | - | 7 lost or wrong; 1 disturbed |
`
	if got := tt.table(rounds); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
}

func TestVerdict(t *testing.T) {
	rate := column{key: "rate", digits: 0, better: higher}
	for _, c := range []struct {
		name string
		goal goal
		want string
	}{
		{"ratio met", goal{text: "x", test: "t", server: "ours", column: rate, baseline: "base", bound: 2}, "- pass: x: 2.75"},
		{"ratio missed", goal{text: "x", test: "t", server: "ours", column: rate, baseline: "base", bound: 3}, "- FAIL: x: 2.75"},
		{"bound met", goal{text: "x", test: "t", server: "ours", column: rate, bound: 500}, "- pass: x: 500"},
		{"bound missed", goal{text: "x", test: "t", server: "ours", column: rate, bound: 499}, "- FAIL: x: 500"},
		{"bound met, in the unit shown", goal{text: "x", test: "t", server: "ours", column: column{key: "rate", scale: 100}, bound: 5}, "- pass: x: 5"},
		{"not measured is no pass", goal{text: "x", test: "t", server: "none", column: rate, bound: 1}, "- not measured: x"},
		{"no baseline is no pass", goal{text: "x", test: "t", server: "ours", column: rate, baseline: "none", bound: 1}, "- not measured: x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.goal.verdict(rounds); !strings.HasPrefix(got, c.want) {
				t.Errorf("verdict = %q, want %q", got, c.want)
			}
		})
	}
}

// Every goal names a test, a server and a figure that exist; else it would never be measured.
func TestGoalsExist(t *testing.T) {
	b := &bench{flows: 1, net: plan(10), postern: "there"}
	for _, g := range goals {
		found := false
		for _, tt := range b.tests() {
			for _, c := range tt.columns {
				found = found || tt.name == g.test && c.key == g.column.key && (g.baseline == "" || g.baseline == tt.baseline)
			}
		}
		if !found {
			t.Errorf("goal %q is about no column of a test", g.text)
		}
		names := []string{serverPostern, serverBolt, serverPosternPinned, serverPosternProgram}
		if _, dns := b.dnsServers()[g.server]; !dns && !slices.Contains(names, g.server) {
			t.Errorf("goal %q is about no server", g.text)
		}
	}
}

// What idle flows cost the load and the backend is taken off, by the direct run of the same round.
func TestOwnKernel(t *testing.T) {
	r := results{
		{Round: 0, Test: "idle", Server: "p", Values: map[string]float64{keyIdleKernel: 19, keyIdleRSS: 3}},
		{Round: 0, Test: "idle", Server: serverDirect, Values: map[string]float64{keyIdleKernel: 9}},
		{Round: 1, Test: "idle", Server: "p", Values: map[string]float64{keyIdleKernel: 19, keyIdleRSS: 3}},
	}
	r.ownKernel()
	if got := r.values("idle", "p", keyIdleTotal); got != (spread{13, 13, 13, 1}) {
		t.Errorf("total = %+v, want 13 in the round that has a direct run", got)
	}
	if got := r.values("idle", serverDirect, keyIdleTotal); got.n != 0 {
		t.Errorf("the direct run has a total: %+v", got)
	}
}

func TestRotated(t *testing.T) {
	items := []string{"a", "b", "c"}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(rotated(items, round), ""); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}
