//go:build linux

package main

import (
	"testing"
	"time"
)

func TestParseDnsperf(t *testing.T) {
	const out = `Statistics:

  Queries sent:         113170
  Queries completed:    113160 (99.99%)
  Queries lost:         10 (0.01%)

  Response codes:       NOERROR 101853 (90.01%), NXDOMAIN 11307 (9.99%)
  Average packet size:  request 52, response 70
  Run time (s):         1.002000
  Queries per second:   112934.131737

  Average Latency (s):  0.000875 (min 0.000127, max 0.006812)
  Latency StdDev (s):   0.000301
`
	got, err := parseDnsperf(out)
	want := dnsperfReport{completed: 113160, lost: 10, qps: 112934.131737, latency: 0.000875, seconds: 1.002}
	if err != nil || got != want {
		t.Errorf("parseDnsperf = %+v, %v; want %+v", got, err, want)
	}
	if _, err := parseDnsperf("Queries completed: 3"); err == nil {
		t.Error("a report without the other figures was taken")
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       time.Duration
		bad        bool
	}{
		{"plain", "71 (haproxy) S 1 71 71 0 -1 4194560 100 0 0 0 120 30 7 8 20 0 1 0 5 0 0", 1500 * time.Millisecond, false},
		{"parenthesis and spaces in the name", "71 (a) b (c) S 1 71 71 0 -1 4194560 100 0 0 0 1 2 7 8 20 0 1 0 5 0 0", 30 * time.Millisecond, false},
		{"no name", "71 S 1", 0, true},
		{"cut", "71 (x) S 1 71", 0, true},
		{"not a number", "71 (x) S 1 71 71 0 -1 4194560 100 0 0 0 x 2 7 8", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := parseStat(c.text); got != c.want || (err != nil) != c.bad {
				t.Errorf("parseStat = %v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// Interrupts (fields 6 and 7) and waiting belong to nobody.
func TestParseMachine(t *testing.T) {
	got, err := parseMachine("cpu  100 20 3 9999 500 70 60 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	if want := 1300 * time.Millisecond; err != nil || got != want {
		t.Errorf("parseMachine = %v, %v; want %v", got, err, want)
	}
	if _, err := parseMachine("cpu 1 2"); err == nil {
		t.Error("a line that is cut was taken")
	}
}

func TestParseMemory(t *testing.T) {
	const status = "Name:\tx\nVmPeak:\t  900 kB\nVmRSS:\t    12 kB\n"
	if got := parseKB(status, "VmRSS"); got != 12<<10 {
		t.Errorf("VmRSS = %d", got)
	}
	if got := parseKB(status, "Slab"); got != 0 {
		t.Errorf("a line that isn't there = %d", got)
	}
	const slab = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> ...\nTCP 10 16 2304 14 8 : tunables 0 0 0\ndentry 100 120 192 21 1 : tunables 0 0 0\n"
	if got := parseSlabinfo(slab); got != 10*2304+100*192 {
		t.Errorf("slab = %d", got)
	}
	const sockstat = "sockets: used 22\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 289\nUDP: inuse 0 mem 5\n"
	if got := parseSockstat(sockstat); got != 289 {
		t.Errorf("TCP pages = %d", got)
	}
}

func TestSplitCPUs(t *testing.T) {
	for list, want := range map[string][2]string{
		"0":       {"", ""},
		"0-1":     {"0", "1"},
		"0-3":     {"0", "1-3"},
		"2,5":     {"2", "5"},
		"2-3,6-7": {"2", "3,6-7"},
		"":        {"", ""},
	} {
		if first, others := splitCPUs(list); first != want[0] || others != want[1] {
			t.Errorf("splitCPUs(%q) = %q, %q; want %q", list, first, others, want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for _, c := range []struct {
		name   string
		values []time.Duration
		p      int
		want   time.Duration
	}{
		{"nothing", nil, 99, 0},
		{"one", []time.Duration{5}, 50, 5},
		{"the middle", hundred, 50, 50},
		{"the tail", hundred, 99, 99},
		{"few values: the largest", []time.Duration{1, 2, 3}, 99, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := percentile(c.values, c.p); got != c.want {
				t.Errorf("percentile = %v, want %v", got, c.want)
			}
		})
	}
}

// Queries are for distinct names, and as many are unknown as the test says.
func TestQueries(t *testing.T) {
	for _, tt := range dnsTests() {
		t.Run(tt.name, func(t *testing.T) {
			seen, unknown := make(map[string]bool), 0
			for i := range dnsNames {
				seen[tt.question(i)] = true
				if tt.missing(i) {
					unknown++
				}
			}
			want := 0
			if tt.misses > 0 {
				want = dnsNames / tt.misses
			}
			if len(seen) != dnsNames || unknown != want {
				t.Errorf("%d names, %d unknown; want %d and %d", len(seen), unknown, dnsNames, want)
			}
		})
	}
	p := plan(10)
	addrs := make(map[string]bool)
	for i := range dnsNames {
		addrs[p.address(i).String()] = p.pool.Contains(p.address(i))
	}
	if len(addrs) != dnsNames || addrs["10.77.0.0"] || !addrs["10.77.3.250"] {
		t.Errorf("%d endpoint addresses, or outside of the pool", len(addrs))
	}
}

func TestHeaderSize(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11"
	for _, c := range []struct {
		name, in string
		want     int
		bad      bool
	}{
		{"none", "exxx", 0, false},
		{"a hello", "\x16\x03\x01", 0, false},
		{"version 1", "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nexx", 33, false},
		{"version 1, cut", "PROXY TCP4 1.2.3.4", 0, true},
		{"version 2", v2 + "\x00\x0c............exx", 28, false},
		{"version 2 alone", v2 + "\x00\x00", 16, false},
		{"version 2, cut", v2 + "\x00\x0c.......", 0, true},
		{"version 2, its length cut", v2 + "\x00", 0, true},
		{"what isn't one", "\r\n\r\nGET / HTTP/1.1\r\n", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := headerSize([]byte(c.in))
			if ok == c.bad || ok && got != c.want {
				t.Errorf("headerSize = %d, %v; want %d", got, ok, c.want)
			}
		})
	}
}
