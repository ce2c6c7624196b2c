package link

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestSpreadCheck(t *testing.T) {
	a := netip.MustParseAddrPort("10.20.0.4:443")
	for name, tt := range map[string]struct {
		spread Spread
		bad    string // part of the error
	}{
		"zero":                    {Spread{}, ""},
		"all":                     {Spread{LeastConnections, map[netip.AddrPort]int{a: 3}, Probe{Kind: ProbeHTTP, Path: "/up?all=1", Status: 204}, 10, 20, map[NamePort]int{{"db.example", 443}: 0}, MaxWarm, MaxWarmAge}, ""},
		"drained":                 {Spread{Weights: map[netip.AddrPort]int{a: 0}}, ""},
		"balance":                 {Spread{Balance: "random"}, "balance"},
		"weight of a name":        {Spread{NameWeights: map[NamePort]int{{"db.example", 443}: MaxWeight + 1}}, "weight 1001 of target db.example:443"},
		"weight below":            {Spread{Weights: map[netip.AddrPort]int{a: -1}}, "weight -1"},
		"weight above":            {Spread{Weights: map[netip.AddrPort]int{a: MaxWeight + 1}}, "weight 1001"},
		"bound below":             {Spread{MaxPerTarget: -1}, "-1 flows"},
		"waiting below":           {Spread{MaxPerTarget: 1, MaxWaiting: -1}, "-1 waiting"},
		"waiting for nothing":     {Spread{MaxWaiting: 1}, "wait for a place"},
		"warm below":              {Spread{Warm: -1}, "-1 warm"},
		"warm above":              {Spread{Warm: MaxWarm + 1}, "101 warm"},
		"warm for too short":      {Spread{Warm: 1, WarmAge: MinWarmAge - 1}, "age 999.999999ms"},
		"warm for too long":       {Spread{Warm: 1, WarmAge: MaxWarmAge + 1}, "1s to 10m0s"},
		"age of none":             {Spread{WarmAge: MinWarmAge}, "of which there are none"},
		"probe of a kind":         {Spread{Probe: Probe{Kind: "udp"}}, `probe "udp"`},
		"tcp with a path":         {Spread{Probe: Probe{Path: "/"}}, "no words"},
		"tls":                     {Spread{Probe: Probe{Kind: ProbeTLS}}, ""},
		"tls with a name":         {Spread{Probe: Probe{Kind: ProbeTLS, Name: "db.example"}}, ""},
		"tls with a pattern":      {Spread{Probe: Probe{Kind: ProbeTLS, Name: "*.example.com"}}, "server name"},
		"tls with a path":         {Spread{Probe: Probe{Kind: ProbeTLS, Path: "/"}}, "neither path"},
		"http without a path":     {Spread{Probe: Probe{Kind: ProbeHTTP}}, "begins with"},
		"http with a name":        {Spread{Probe: Probe{Kind: ProbeHTTP, Path: "/", Name: "a.example"}}, "no name"},
		"http of two lines":       {Spread{Probe: Probe{Kind: ProbeHTTP, Path: "/ HTTP/1.1\r\nHost: x"}}, "ASCII"},
		"http with a fragment":    {Spread{Probe: Probe{Kind: ProbeHTTP, Path: "/#a"}}, "ASCII"},
		"http with a long path":   {Spread{Probe: Probe{Kind: ProbeHTTP, Path: "/" + strings.Repeat("a", MaxProbePath)}}, "at most"},
		"http status of no end":   {Spread{Probe: Probe{Kind: ProbeHTTP, Path: "/", Status: 103}}, "status 103"},
		"http status out of 1 to": {Spread{Probe: Probe{Kind: ProbeHTTP, Path: "/", Status: 600}}, "status 600"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.spread.check()
			if tt.bad == "" && err != nil {
				t.Fatal(err)
			}
			if tt.bad != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.bad)) {
				t.Fatalf("error %v, want one with %q", err, tt.bad)
			}
		})
	}
}

// A service of before means what it meant; what it doesn't say isn't written; and what it says stands beside its
// other fields, where an older node keeps it.
func TestSpreadIsStoredInTheService(t *testing.T) {
	const old = `{"id":"v","alias":"v.alias","port":443,"targets":[{"addr":"10.20.0.4:443"}],"pin":"address","proxyProtocol":"off"}`
	var v Service
	if err := json.Unmarshal([]byte(old), &v); err != nil {
		t.Fatal(err)
	}
	a := v.Targets[0].Addr
	if v.Weight(a) != 1 || v.Drained(a) || v.check() != nil {
		t.Errorf("weight %d, drained %v, error %v", v.Weight(a), v.Drained(a), v.check())
	}
	if text, err := json.Marshal(&v); err != nil || string(text) != old {
		t.Errorf("written as %s, error %v", text, err)
	}
	v.Weights, v.Probe, v.Balance = map[netip.AddrPort]int{a: 0}, Probe{Kind: ProbeTLS}, SourceHash
	text, err := json.Marshal(&v)
	if want := `"balance":"source-hash","weights":{"10.20.0.4:443":0},"probe":{"kind":"tls"}}`; err != nil || !strings.HasSuffix(string(text), want) {
		t.Errorf("written as %s, error %v", text, err)
	}
	var again Service
	if err := json.Unmarshal(text, &again); err != nil || !again.Drained(a) || again.Weight(netip.MustParseAddrPort("10.20.0.5:443")) != 1 {
		t.Errorf("read as %+v, error %v", again.Spread, err)
	}
}
