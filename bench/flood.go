//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// The servers of the test of what is asked of a node meanwhile.
const (
	serverAtRest  = "Postern, at rest"
	serverFlooded = "Postern, flooded"
)

// The figures of that test: seconds.
const (
	keyDNS        = "dns_p50"
	keyDNS99      = "dns_p99"
	keyAPI        = "api_p50"
	keyAPI99      = "api_p99"
	keyMetrics    = "metrics_p50"
	metricsPort   = 9153
	floodingConns = 64
)

// floodedTest is what DNS, the API and the metrics answer while connections come as fast as they can.
func floodedTest() test {
	ms := func(key, head string) column {
		return column{key: key, head: head, scale: 1e-3, digits: 2, better: lower}
	}
	return test{
		name: "flooded", baseline: serverAtRest, title: "DNS, API and metrics while the data plane is flooded with connections",
		columns: []column{
			ms(keyDNS, "DNS p50 ms"), {key: keyDNS99, head: "p99 ms", scale: 1e-3, digits: 2},
			ms(keyAPI, "API p50 ms"), {key: keyAPI99, head: "p99 ms", scale: 1e-3, digits: 2},
			ms(keyMetrics, "metrics p50 ms"), {key: keyRate, head: "k connections/s", scale: 1e3, digits: 1},
		},
	}
}

// runFlooded measures a node at rest and one that is flooded.
func (b *bench) runFlooded(round int) {
	for _, name := range rotated([]string{serverAtRest, serverFlooded}, round) {
		if b.wants(floodedTest().name, name) {
			b.cell(round, floodedTest().name, name, func() (map[string]float64, float64, error) { return b.measureFlooded(name == serverFlooded) })
		}
	}
}

// measureFlooded starts a node with everything and asks it, one question after the other.
func (b *bench) measureFlooded(flooded bool) (map[string]float64, float64, error) {
	n := b.newControlNode(0)
	n.more = b.metrics() + b.consumer() + b.published("  names "+serverName+"\n  pin address\n")
	p, err := b.start(server{serverPostern, func(dir string) ([]string, error) { return n.configure(b, dir, "") }})
	if err != nil {
		return nil, 0, err
	}
	n.process = p
	defer n.stop()
	ready := func() error {
		return errors.Join(n.do(http.MethodGet, "/subscriptions", nil, nil), b.ask(proxyTest{}))
	}
	if err := p.await(ready); err != nil {
		return nil, 0, err
	}
	loads := []int{b.sink.cmd.Process.Pid}
	var l *role
	if flooded {
		if l, err = b.startLoad(order{Kind: loadConnect, Target: b.net.endpoint, Sources: b.net.sources, Conns: floodingConns, Seconds: b.seconds, Warm: 0.3}); err != nil {
			return nil, 0, err
		}
		defer l.stop()
		if err := l.awaitBegan(); err != nil {
			return nil, 0, err
		}
		loads = append(loads, tree(l.cmd.Process.Pid)...)
	}
	w := observe(tree(p.cmd.Process.Pid), loads)
	values, err := n.questions(b, seconds(b.seconds))
	if err != nil {
		return nil, 0, fmt.Errorf("%w; the node's log ends: %s", err, p.tail())
	}
	u := w.end(0)
	if flooded {
		out, err := l.outcome()
		if err != nil {
			return nil, 0, err
		}
		values[keyRate], values[keyLost] = float64(out.Count)/out.Seconds, float64(out.Errors)
	}
	return values, u.others, nil
}

// questions asks DNS most often, the API less, and the metrics least.
func (n *controlNode) questions(b *bench, d time.Duration) (map[string]float64, error) {
	metrics := "http://" + netip.AddrPortFrom(n.dns.Addr(), metricsPort).String() + "/metrics"
	kinds := []struct {
		every    int
		p50, p99 string
		ask      func() error
		took     []time.Duration
	}{
		{every: 1, p50: keyDNS, p99: keyDNS99, ask: func() error {
			rrs, err := n.ask(b.net.sources[0], serverName)
			if err == nil && len(rrs) == 0 {
				err = errors.New("DNS answers nothing")
			}
			return err
		}},
		{every: 8, p50: keyAPI, p99: keyAPI99, ask: func() error { return n.do(http.MethodGet, "/subscriptions", nil, nil) }},
		{every: 32, p50: keyMetrics, p99: keyP99, ask: func() error {
			r, err := n.client.Get(metrics)
			if err != nil {
				return err
			}
			defer r.Body.Close()
			_, err = io.Copy(io.Discard, r.Body)
			return err
		}},
	}
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		for k := range kinds {
			if i%kinds[k].every != 0 {
				continue
			}
			began := time.Now()
			if err := kinds[k].ask(); err != nil {
				return nil, err
			}
			kinds[k].took = append(kinds[k].took, time.Since(began))
		}
		time.Sleep(2 * time.Millisecond)
	}
	values := map[string]float64{}
	for _, k := range kinds {
		q := quantiles(k.took)
		values[k.p50], values[k.p99] = q[keyP50], q[keyP99]
	}
	return values, nil
}
