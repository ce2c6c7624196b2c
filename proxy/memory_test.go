package proxy

import (
	"io"
	"net"
	"testing"

	"github.com/postern-link/postern/proxy/budget"
)

// P11: the default of max_flows is what the scarcer one of descriptors and memory has room for.
func TestFlowsFor(t *testing.T) {
	for name, test := range map[string]struct {
		memory      int64
		descriptors int
		want        int
	}{
		"memory isn't known":           {0, 1024, 85},
		"256 MB and many descriptors":  {256 << 20, 1 << 20, 4096},
		"256 MB and few descriptors":   {256 << 20, 20_000, 3248},
		"64 MB":                        {64 << 20, 20_000, 1024},
		"next to nothing":              {1, 20_000, 1},
		"no descriptors":               {256 << 20, 10, 1},
		"more memory than can be used": {1 << 62, 1 << 20, 174677},
	} {
		t.Run(name, func(t *testing.T) {
			if got := flowsFor(budget.Memory{Limit: test.memory}, test.descriptors); got != test.want {
				t.Errorf("%d flows, want %d", got, test.want)
			}
		})
	}
}

// P11: while memory is short no flow is let in, with its reason; live ones go on, and new ones are taken when there is memory again.
func TestMemoryIsShort(t *testing.T) {
	w := newWorld(t, Settings{}, service("svc", 7001, echo(t)), endpoint("e", "svc", nextAddr(t)))
	live := dial(t, w.first())
	says := func(c net.Conn) {
		t.Helper()
		io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	says(live)
	for _, step := range []struct {
		used  int64
		short bool
	}{{0, false}, {849, false}, {850, true}, {1200, true}, {800, true}, {799, false}, {820, false}, {850, true}, {0, false}} {
		wait := w.proxy.lookedAtMemory(step.used, 1000)
		if got := w.proxy.live.short.Load(); got != step.short || wait < looksFirst || wait > looksLast {
			t.Fatalf("%d of 1000 used: short %v, looks again in %v", step.used, got, wait)
		}
		if got := w.metric(t, "postern_proxy_memory_short") == 1; got != step.short {
			t.Errorf("%d of 1000 used: the metric says %v", step.used, got)
		}
		c, err := net.Dial("tcp", w.first())
		if err == nil && step.short {
			io.WriteString(c, "x")
			if _, err = c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%d of 1000 used: let in", step.used)
			}
		} else if err == nil {
			says(c)
		} else if !step.short {
			t.Error(err)
		}
		if c != nil {
			c.Close()
		}
		says(live)
	}
	eventually(t, "the lines of the refused", func() bool {
		return len(w.log.lines("flow refused", "reason=limit", "memory is short")) == 4
	})
	// Memory that is far from short is looked at now and then, memory that fills up very soon.
	if far, near := w.proxy.lookedAtMemory(0, 1<<40), w.proxy.lookedAtMemory(84<<20, 100<<20); far != looksLast || near >= far {
		t.Errorf("looks again in %v and %v", far, near)
	}
}
