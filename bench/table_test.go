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
			if got := rounds.ratio("t", "ours", c.column, "base"); got != c.want {
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
		{"ratio met", goal{text: "x", test: "t", server: "ours", column: rate, against: []string{"base"}, bound: 2}, "- met: x: 2.75"},
		{"ratio missed", goal{text: "x", test: "t", server: "ours", column: rate, against: []string{"base"}, bound: 3}, "- NOT MET: x: 2.75"},
		{"bound met", goal{text: "x", test: "t", server: "ours", column: rate, bound: 500}, "- met: x: 500"},
		{"bound missed", goal{text: "x", test: "t", server: "ours", column: rate, bound: 499}, "- NOT MET: x: 500"},
		{"bound met, in the unit shown", goal{text: "x", test: "t", server: "ours", column: column{key: "rate", scale: 100}, bound: 5}, "- met: x: 5"},
		{"not measured is no pass", goal{text: "x", test: "t", server: "none", column: rate, bound: 1}, "- not measured: x"},
		{"no baseline is no pass", goal{text: "x", test: "t", server: "ours", column: rate, against: []string{"none"}, bound: 1}, "- not measured: x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.goal.verdict(rounds); !strings.HasPrefix(got, c.want) {
				t.Errorf("verdict = %q, want %q", got, c.want)
			}
		})
	}
}

// Every goal names a test, a server and a figure that exist, and servers to be better than; else it would never be measured.
func TestGoalsExist(t *testing.T) {
	b := &bench{flows: 1, net: plan(10), postern: "there"}
	names := append([]string{serverPostern, serverBolt, serverPosternPinned, serverPosternProgram, serverHAProxySNI, serverNginxV1}, everyPeer...)
	names = append(names, serverNSD, serverKnot)
	for name := range b.dnsServers(dnsTests()[0]) {
		names = append(names, name)
	}
	for _, g := range goals {
		found := false
		for _, tt := range b.tests() {
			for _, c := range tt.columns {
				found = found || tt.name == g.test && c == g.column
			}
		}
		if !found {
			t.Errorf("goal %q is about no column of a test", g.text)
		}
		if g.column.better == neither && len(g.against) > 0 {
			t.Errorf("goal %q compares what is neither better nor worse", g.text)
		}
		for _, server := range append(g.against, g.server) {
			if !slices.Contains(names, server) {
				t.Errorf("goal %q is about no server: %q", g.text, server)
			}
		}
	}
}

// The best of several counts, in each round for itself; who has no figure doesn't.
func TestRatioToTheBest(t *testing.T) {
	r := results{
		{Round: 0, Test: "t", Server: "a", Values: map[string]float64{"rate": 10, "cost": 5}},
		{Round: 0, Test: "t", Server: "b", Values: map[string]float64{"rate": 20, "cost": 4}},
		{Round: 0, Test: "t", Server: "c", Values: map[string]float64{}},
		{Round: 0, Test: "t", Server: "ours", Values: map[string]float64{"rate": 40, "cost": 2}},
		{Round: 1, Test: "t", Server: "a", Values: map[string]float64{"rate": 100, "cost": 1}},
		{Round: 1, Test: "t", Server: "b", Err: "away"},
		{Round: 1, Test: "t", Server: "ours", Values: map[string]float64{"rate": 50, "cost": 4}},
	}
	for _, c := range []struct {
		name   string
		column column
		others []string
		want   spread
	}{
		{"the higher the better", column{key: "rate", better: higher}, []string{"a", "b", "c"}, spread{1.25, 0.5, 2, 2}},
		{"the lower the better", column{key: "cost", better: lower}, []string{"a", "b", "c"}, spread{1.125, 0.25, 2, 2}},
		{"nobody", column{key: "rate", better: higher}, nil, spread{}},
		{"nobody with a figure", column{key: "rate", better: higher}, []string{"c"}, spread{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := r.ratio("t", "ours", c.column, c.others...); got != c.want {
				t.Errorf("ratio = %+v, want %+v", got, c.want)
			}
		})
	}
}

// Who needs more descriptors than there are isn't measured.
func TestServersForTheDescriptors(t *testing.T) {
	b := &bench{flows: 9500, limit: 20_000, net: plan(10), postern: "there"}
	for _, tt := range b.proxyTests() {
		if tt.servers != nil {
			continue
		}
		has := slices.ContainsFunc(b.serversOf(tt), func(s server) bool { return s.name == serverRelay })
		if few := tt.conns < 3000; has != few {
			t.Errorf("%s with %d flows: measured %v", tt.name, tt.conns, has)
		}
		if !slices.ContainsFunc(b.serversOf(tt), func(s server) bool { return s.name == serverPostern }) {
			t.Errorf("%s isn't measured", tt.name)
		}
	}
}

// What a request costs on many flows is compared with the same server in the same round.
func TestCostOfMany(t *testing.T) {
	r := results{
		{Round: 0, Test: "flat-few", Server: "p", Values: map[string]float64{keyEachCPU: 10}},
		{Round: 0, Test: "flat-most", Server: "p", Values: map[string]float64{keyEachCPU: 15}},
		{Round: 0, Test: "flat-most", Server: "other", Values: map[string]float64{keyEachCPU: 1}},
		{Round: 1, Test: "flat-most", Server: "p", Values: map[string]float64{keyEachCPU: 99}},
		{Round: 2, Test: "flat-few", Server: "p", Values: map[string]float64{keyEachCPU: 0}},
		{Round: 2, Test: "flat-most", Server: "p", Values: map[string]float64{keyEachCPU: 99}},
	}
	r.costOfMany()
	if got := r.values("flat-most", "p", keyTimes); got != (spread{1.5, 1.5, 1.5, 1}) {
		t.Errorf("times = %+v, want 1.5 in the first round alone", got)
	}
	if got := r.values("flat-most", "other", keyTimes); got.n != 0 {
		t.Errorf("without the test with few flows: %+v", got)
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
	if got := rotated([]string{}, 3); len(got) > 0 { // as where Postern isn't measured and no peer does the same
		t.Errorf("nothing, rotated: %q", got)
	}
	items := []string{"a", "b", "c"}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(rotated(items, round), ""); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}
