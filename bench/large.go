//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// follows is how many approvals are followed to the other node.
const follows = 100

// measureFollow measures the time from the answer of one node to the answer of another one's DNS.
func (b *bench) measureFollow() (map[string]float64, float64, error) {
	cluster, err := b.startMembers()
	if err != nil {
		return nil, 0, err
	}
	defer cluster.stop()
	var nodes [2]*controlNode
	for i := range nodes {
		if nodes[i], err = b.startControl(cluster.endpoints(), i); err != nil {
			return nil, 0, err
		}
		defer nodes[i].stop()
	}
	if err := nodes[0].furnish(); err != nil {
		return nil, 0, err
	}
	var all []time.Duration
	w := observe(append(tree(nodes[0].cmd.Process.Pid), tree(nodes[1].cmd.Process.Pid)...), cluster.pids())
	for i := range follows {
		// A service of its own for each: its name is not answered before.
		if err := errors.Join(nodes[0].service(0, i*perSubnet), nodes[0].request(0, i*perSubnet)); err != nil {
			return nil, 0, err
		}
		if err := nodes[0].approve(0, i*perSubnet); err != nil {
			return nil, 0, err
		}
		took, err := nodes[1].answers(serviceName(0, i*perSubnet)+".bench.example", 0)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, took)
	}
	u := w.end(0)
	return quantiles(all), u.others, nil
}

// answers waits until the node answers a name with an address, and returns how long that took.
func (n *controlNode) answers(name string, worker int) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) < 10*time.Second {
		if rrs, err := n.ask(workerAddr(worker), name); err == nil && len(rrs) > 0 {
			return time.Since(began), nil
		}
		time.Sleep(200 * time.Microsecond)
	}
	return 0, fmt.Errorf("%s isn't answered by %s after 10 s", name, n.dns)
}

// What the large state holds.
const (
	largeNetworks = 100
	largeServices = 1000 // each with an endpoint in each network
)

// large returns the objects of the large state: one subscription's, all approved.
func large(target netip.AddrPort) []link.Object {
	const tenant, group = "bench", subscription + "/bench/"
	now := time.Now().UTC()
	all := []link.Object{&link.Document{Type: "group", ID: subscription + "/bench", Tenant: tenant}}
	for i := range largeNetworks {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + i), 0, 0}), 16)
		all = append(all, &link.Network{
			ID: link.ID(fmt.Sprintf("%sw%d", group, i)), Tenant: tenant, Prefixes: []netip.Prefix{prefix},
			Subnets: []link.Subnet{{Name: "pe", Prefixes: []netip.Prefix{prefix}}},
		})
	}
	for i := range largeServices {
		all = append(all, &link.Service{
			ID: link.ID(fmt.Sprintf("%ss%d", group, i)), Tenant: tenant, Alias: fmt.Sprintf("s%d.%032x.postern.azure.privatelinkservice", i, i),
			Names: []link.ResourceName{{Public: link.Name(fmt.Sprintf("s%d.bench.example", i))}}, Port: target.Port(),
			Targets: []link.Target{{Addr: target}}, Visible: []link.Party{link.Anyone}, Pin: link.PinTLS, ProxyProtocol: link.ProxyOff,
		})
	}
	for i := range largeNetworks * largeServices {
		n, v := i/largeServices, i%largeServices
		all = append(all, &link.Endpoint{
			ID: link.ID(fmt.Sprintf("%se%d", group, i)), Tenant: tenant, Network: link.ID(fmt.Sprintf("%sw%d", group, n)), Subnet: "pe",
			Service: link.ID(fmt.Sprintf("%ss%d", group, v)), Address: netip.AddrFrom4([4]byte{10, byte(100 + n), byte(v>>8) + 1, byte(v)}),
			Connection: link.Connection{LinkID: link.LinkID(i + 1), State: link.Approved, RequestedAt: now, Asked: 1, Decision: link.Decision{Actor: "bench", At: now}},
		})
	}
	return all
}

// largeBackup writes the large state as a backup, once for a run.
func (b *bench) largeBackup() (string, error) {
	path := filepath.Join(b.dir, "large.backup")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	s, err := link.Load(1, slices.Values(large(b.net.targets[0])))
	if err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(store.WriteBackup(b.ctx, f, s, time.Now()), f.Close())
}

// measureLarge starts a node on a bolt file with the large state, and measures what its size could slow.
func (b *bench) measureLarge() (map[string]float64, float64, error) {
	backup, err := b.largeBackup()
	if err != nil {
		return nil, 0, err
	}
	n := b.newControlNode(0)
	var began time.Time
	p, err := b.start(server{serverBolt, func(dir string) ([]string, error) {
		args, err := n.configure(b, dir, "")
		if err != nil {
			return nil, err
		}
		out, err := exec.Command(b.postern, "restore", "-state", filepath.Join(dir, "state.db"), backup).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("restore: %w: %s", err, out)
		}
		began = time.Now()
		return args, nil
	}})
	if err != nil {
		return nil, 0, err
	}
	n.process = p
	defer n.stop()
	last := fmt.Sprintf("s%d.bench.example", largeServices-1)
	if _, err := n.answers(last, 0); err != nil {
		return nil, 0, err
	}
	values := map[string]float64{keyStart: time.Since(began).Seconds()}
	pids := tree(n.cmd.Process.Pid)
	if err := p.await(func() error { return n.do(http.MethodGet, "/subscriptions", nil, nil) }); err != nil {
		return nil, 0, err
	}
	w := observe(pids, nil)
	pages, err := n.pages(50)
	if err != nil {
		return nil, 0, err
	}
	changes, err := n.changes(100)
	if err != nil {
		return nil, 0, err
	}
	u := w.end(0)
	values[keyPage] = quantiles(pages)[keyP50]
	values[keyP50] = quantiles(changes)[keyP50]
	values[keyMemory] = float64(rss(pids...))
	return values, u.others, nil
}

// pages reads pages of the list of endpoints, one after the other.
func (n *controlNode) pages(most int) ([]time.Duration, error) {
	var all []time.Duration
	path := "/subscriptions/" + subscription + "/providers/Microsoft.Network/privateEndpoints"
	for range most {
		var page struct {
			Value    []json.RawMessage `json:"value"`
			NextLink string            `json:"nextLink"`
		}
		began := time.Now()
		if err := n.do(http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
		if len(page.Value) == 0 {
			return nil, errors.New("a page of the list is empty")
		}
		if page.NextLink == "" {
			break
		}
		path = strings.TrimPrefix(page.NextLink, n.api)
	}
	return all, nil
}

// changes has endpoints deleted, one after the other.
func (n *controlNode) changes(count int) ([]time.Duration, error) {
	var all []time.Duration
	for i := range count {
		began := time.Now()
		if err := n.do(http.MethodDelete, fmt.Sprintf("%sprivateEndpoints/e%d", network, i*7), nil, nil); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
	}
	return all, nil
}
