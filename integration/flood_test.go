package integration

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestP09Flood: one source connects as fast as this machine can, and keeps what it gets. It has as many flows as a source may
// have; another one connects meanwhile and DNS answers it.
func TestP09Flood(t *testing.T) {
	const perSource, probes, lasts = 200, 40, 5 * time.Second
	g := newGround(t)
	g.echoes("provider", "10.20.0.4:7000")
	binary := plain(t)
	node := g.daemon("node", "edge", "127.0.0.1:9153", binary, "-conf",
		g.file("Corefile", strings.ReplaceAll(crowdCorefile, "SETTINGS", fmt.Sprintf("max_per_source %d", perSource))))
	if node.out.find(serving, 0, startTimeout, node.done) == "" {
		t.Fatalf("the node doesn't serve:\n%s", node.out)
	}
	g.carries("10.200.0.5:7000")

	var asks atomic.Int64
	stop := make(chan struct{})
	var flood sync.WaitGroup
	over := sync.OnceFunc(func() {
		close(stop)
		flood.Wait()
	})
	t.Cleanup(over) // before the node ends
	for range 8 {
		flood.Go(func() {
			_ = g.net.hosts["corp-a"].enter(func() error {
				var held []net.Conn
				defer func() {
					for _, c := range held {
						c.Close()
					}
				}()
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					c, err := net.DialTimeout("tcp", "10.200.0.5:7000", time.Second)
					asks.Add(1)
					if err != nil {
						continue
					}
					if held = append(held, c); len(held) > 2*perSource { // most of them were refused
						held[0].Close()
						held = held[1:]
					}
				}
			})
		})
	}
	began := time.Now()
	var took []time.Duration
	most := 0
	for i := range probes {
		from := time.Now()
		conn, err := g.dial("corp-b", "10.200.0.5:7000")
		if err == nil {
			if len(answered([]net.Conn{conn})) == 0 {
				err = errors.New("no answer")
			}
			took = append(took, time.Since(from))
			conn.Close()
		}
		if err != nil {
			t.Errorf("probe %d: %v", i, err)
		}
		if err := g.net.hosts["corp-b"].ask("10.1.0.1", "app.example.com", "10.200.0.5"); err != nil {
			t.Errorf("question %d: %v", i, err)
		}
		if i%10 == 0 {
			most = max(most, g.metric(`postern_proxy_flows_active(?:\{[^}]*\})?`))
		}
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * lasts / probes)))
	}
	rate := float64(asks.Load()) / time.Since(began).Seconds()
	over()
	slices.Sort(took)
	if len(took) == 0 {
		t.Fatal("no probe connected")
	}
	t.Logf("%.0f connects in a second, at most %d flows; a probe of another source is answered after %v, the slowest after %v", rate, most,
		took[len(took)/2].Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond))
	// Flows that are refused are counted while they are: a few more than those of both sources.
	if most > 2*perSource {
		t.Errorf("%d flows at once", most)
	}
	if refused := g.metric(`postern_proxy_refused_total\{[^}]*reason="limit"\}`); refused == 0 {
		t.Error("nothing was refused: there was no flood")
	}
	if slowest := took[len(took)-1]; slowest > 5*time.Second { // 50 ms on a machine with nothing else to do
		t.Errorf("a probe was answered after %v", slowest)
	}
}
