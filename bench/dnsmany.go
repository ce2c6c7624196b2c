//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

const (
	// manyNames is how many there are in the tests with many.
	manyNames = 100_000
	// manyWarm is for how long they are asked before anything is measured, in seconds: each more than once.
	manyWarm = 8
)

// addressOf returns the address of a name in a test. Many names have more addresses than a pool.
func (a addresses) addressOf(t dnsTest, i int) netip.Addr {
	if !t.many {
		return a.address(i)
	}
	b := a.manyPool().Addr().As4()
	b[1] += byte(i / 62_500)
	b[2], b[3] = byte(i%62_500/250), byte(i%250+5) // the first four of a subnet are nobody's
	return netip.AddrFrom4(b)
}

// manyPool is where the endpoints of many names are.
func (a addresses) manyPool() netip.Prefix {
	b := a.pool.Addr().As4()
	b[1] = 80
	return netip.PrefixFrom(netip.AddrFrom4(b), 15)
}

// manyObjects is a service and an endpoint for each of many names, in the network of the load generator.
func (b *bench) manyObjects() []link.Object {
	const tenant, group = "bench", subscription + "/bench/"
	now := time.Now().UTC()
	pool := b.net.manyPool()
	all := []link.Object{
		&link.Network{
			ID: group + "consumer", Tenant: tenant, Prefixes: []netip.Prefix{b.net.clients, pool},
			Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{pool}}},
		},
	}
	for i := range manyNames {
		all = append(all, &link.Service{
			ID: link.ID(group + label(i)), Tenant: tenant, Alias: fmt.Sprintf("%s.%032x.postern.azure.privatelinkservice", label(i), i),
			Names: []link.ResourceName{{Public: link.Name(label(i) + "." + publicZone), Private: link.Name(label(i) + "." + privateZone), Zone: privateZone}}, Port: b.net.targets[0].Port(),
			Targets: []link.Target{{Addr: b.net.targets[0]}}, Visible: []link.Party{link.Anyone}, Pin: link.PinTLS, ProxyProtocol: link.ProxyOff,
		}, &link.Endpoint{
			ID: link.ID(group + label(i)), Tenant: tenant, Network: group + "consumer", Subnet: "pe", Service: link.ID(group + label(i)),
			Address:    b.net.addressOf(dnsTest{many: true}, i),
			Connection: link.Connection{LinkID: link.LinkID(i + 1), State: link.Approved, RequestedAt: now, Asked: 1, Decision: link.Decision{Actor: "bench", At: now}},
		})
	}
	return all
}

// restoreMany restores the state of many names into a directory. The backup is written once for a run.
func (b *bench) restoreMany(dir string) error {
	path := filepath.Join(b.dir, "many.backup")
	if _, err := os.Stat(path); err != nil {
		s, err := link.Load(1, slices.Values(b.manyObjects()))
		if err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(store.WriteBackup(b.ctx, f, s, time.Now()), f.Close()); err != nil {
			return err
		}
	}
	if out, err := exec.Command(b.postern, "restore", "-state", filepath.Join(dir, "state.db"), path).CombinedOutput(); err != nil {
		return fmt.Errorf("restore: %w: %s", err, out)
	}
	return nil
}

// posternMany serves the state of many names.
func (b *bench) posternMany(dir, fastpath string) ([]string, error) {
	if err := b.restoreMany(dir); err != nil {
		return nil, err
	}
	return b.corefile(b.postern, dir, fmt.Sprintf(".:%d {\n bind %s\n linkstore bolt %s\n privatelink {\n  miss nxdomain\n  fastpath %s\n }\n}\n",
		b.net.dns.Port(), b.net.dns.Addr(), filepath.Join(dir, "state.db"), fastpath))
}

// keyMax is the largest value, keyQuiet the latency of which 99 of 100 queries have less while nothing changes.
const (
	keyMax   = "max"
	keyQuiet = "quiet_p99"
)

// changeTest is the time until one change among many names is answered.
func changeTest() test {
	return test{name: "dns-change", title: fmt.Sprintf("DNS: a change of one of %d endpoints under %d queries/s", manyNames, dnsRate), columns: []column{
		{key: keyP50, head: "from the API's answer until DNS's p50 ms", scale: 1e-3, digits: 2},
		{key: keyMax, head: "max ms", scale: 1e-3, digits: 2},
		{key: keyP99, head: "p99 of queries us", scale: 1e-6},
		{key: keyQuiet, head: "without changes us", scale: 1e-6},
	}}
}

// runChange measures it once.
func (b *bench) runChange(round int) {
	if name := changeTest().name; b.wants(name, serverPostern) {
		b.cell(round, name, serverPostern, b.measureChange)
	}
}

// changePause is between two changes.
const changePause = 250 * time.Millisecond

// measureChange rejects and approves one connection again and again while all names are asked for.
func (b *bench) measureChange() (map[string]float64, float64, error) {
	n := b.newControlNode(0)
	p, err := b.start(server{serverPostern, func(dir string) ([]string, error) {
		if err := b.restoreMany(dir); err != nil {
			return nil, err
		}
		return n.configure(b, dir, "")
	}})
	if err != nil {
		return nil, 0, err
	}
	n.process = p
	defer n.stop()
	if err := p.await(func() error { return n.do(http.MethodGet, "/subscriptions", nil, nil) }); err != nil {
		return nil, 0, err
	}
	if err := n.do(http.MethodPut, benchGroup, object{"location": "local"}, nil); err != nil {
		return nil, 0, err
	}
	many := dnsTest{many: true}
	if err := p.await(func() error { return b.checkAnswer(many, 0) }); err != nil {
		return nil, 0, err
	}
	data, err := config(p.dir, "queries", many.queries())
	if err != nil {
		return nil, 0, err
	}
	job := burstJob{To: b.net.dns, From: b.net.sources[0], Queries: data, Seconds: manyWarm}
	if _, _, err := b.burst(job); err != nil {
		return nil, 0, err
	}
	w := observe(tree(n.cmd.Process.Pid), nil)
	job.Seconds, job.Rate = max(b.seconds, 3), dnsRate
	quiet, spent, err := b.burst(job)
	if err != nil {
		return nil, 0, err
	}
	change, err := n.toggle(manyNames / 2)
	if err != nil {
		return nil, 0, err
	}
	stop := make(chan struct{})
	type outcome struct {
		all []time.Duration
		err error
	}
	changed := make(chan outcome, 1)
	go func() {
		all, err := b.follow(change, manyNames/2, stop)
		changed <- outcome{all, err}
	}()
	busy, more, err := b.burst(job)
	close(stop)
	r := <-changed
	if err := errors.Join(err, r.err); err != nil {
		return nil, 0, err
	}
	u := w.end(spent + more)
	slices.Sort(r.all)
	return map[string]float64{
		keyP50: quantiles(r.all)[keyP50], keyMax: r.all[len(r.all)-1].Seconds(), keyP99: busy.P99, keyQuiet: quiet.P99, keyLost: float64(busy.Lost),
	}, u.others, nil
}

// toggle returns what approves or rejects the connection of name number i.
func (n *controlNode) toggle(i int) (func(approved bool) error, error) {
	var e struct {
		Properties struct {
			ResourceGUID string `json:"resourceGuid"`
		} `json:"properties"`
	}
	if err := n.do(http.MethodGet, network+"privateEndpoints/"+label(i), nil, &e); err != nil {
		return nil, err
	}
	path := fmt.Sprintf("%sprivateLinkServices/%[2]s/privateEndpointConnections/%[2]s.%[3]s", network, label(i), e.Properties.ResourceGUID)
	return func(approved bool) error {
		status := "Rejected"
		if approved {
			status = "Approved"
		}
		return n.do(http.MethodPut, path, object{"properties": object{"privateLinkServiceConnectionState": object{"status": status, "description": "bench"}}}, new(json.RawMessage))
	}, nil
}

// follow makes changes until stop, and returns how long each took from the API's answer to the right one of DNS.
func (b *bench) follow(change func(approved bool) error, i int, stop <-chan struct{}) (all []time.Duration, err error) {
	conn, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: b.net.sources[1].AsSlice()}}).Dial("udp", b.net.dns.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(dnsTest{}.question(i)), dns.TypeA)
	client := dns.Client{Timeout: time.Second}
	answered := func() (bool, error) {
		r, _, err := client.ExchangeWithConn(query, &dns.Conn{Conn: conn})
		return err == nil && len(r.Answer) > 0, err
	}
	tick := time.NewTicker(changePause)
	defer tick.Stop()
	for approved := false; ; approved = !approved {
		select {
		case <-stop:
			if len(all) == 0 {
				return nil, errors.New("no change was made")
			}
			return all, nil
		case <-tick.C:
		}
		if err := change(approved); err != nil {
			return nil, err
		}
		for began := time.Now(); ; {
			is, err := answered()
			if err != nil {
				return nil, err
			}
			if is == approved {
				all = append(all, time.Since(began))
				break
			}
			if time.Since(began) > 5*time.Second {
				return nil, errors.New("a change isn't answered after 5 s: approved " + strconv.FormatBool(approved))
			}
		}
	}
}
