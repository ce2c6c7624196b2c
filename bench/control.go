//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What the control plane is measured with.
const (
	controlWorkers = 8   // clients that write at once
	perSubnet      = 200 // endpoints of one network and service: below every limit
	apiPort        = 8443
	subscription   = "00000000-0000-4000-8000-00000000be1c"
	apiVersion     = "?api-version=2025-05-01"
)

// The figures of a test of the control plane.
const (
	keyP95    = "p95"
	keyStart  = "start"
	keyMemory = "memory"
	keyPage   = "page"
)

var (
	writeColumns = []column{
		{key: keyRate, head: "operations/s", better: higher},
		{key: keyP50, head: "p50 ms", scale: 1e-3, digits: 1, better: lower},
		{key: keyP99, head: "p99 ms", scale: 1e-3, digits: 1, better: lower},
	}
	followColumns = []column{
		{key: keyP50, head: "p50 ms", scale: 1e-3, digits: 1},
		{key: keyP95, head: "p95 ms", scale: 1e-3, digits: 1},
		{key: keyP99, head: "p99 ms", scale: 1e-3, digits: 1},
	}
	columnStart  = column{key: keyStart, head: "start s", digits: 2}
	columnMemory = column{key: keyMemory, head: "resident MB", scale: 1e6}
	columnChange = column{key: keyP50, head: "a change ms", scale: 1e-3, digits: 1}
	columnPage   = column{key: keyPage, head: "a page of a list ms", scale: 1e-3, digits: 1}
)

// controlTests are the tables of the control plane.
func controlTests() []test {
	return []test{
		{name: "control-request", title: "API: PUT of a new endpoint, 8 clients", baseline: serverEtcdPut, columns: writeColumns},
		{name: "control-approve", title: "API: approve a connection, 8 clients", baseline: serverEtcdPut, columns: writeColumns},
		{name: "control-follow", title: "From the API's answer to an approval until DNS on another node answers", columns: followColumns},
		{name: "control-large", title: "100,000 endpoints of 1,000 services", columns: []column{columnStart, columnMemory, columnChange, columnPage}},
	}
}

// The servers of those tests. A put into the same etcd, of one key by the same number of clients, is the
// floor of what can be had on three members.
const (
	serverBolt    = "Postern, bolt"
	serverEtcd    = "Postern, etcd"
	serverEtcdPut = "etcd, one put"
)

// runControl measures the control plane once.
func (b *bench) runControl(round int) {
	for _, name := range rotated([]string{serverEtcdPut, serverBolt, serverEtcd}, round) {
		if b.wants("control-request", name) || b.wants("control-approve", name) {
			b.runWrites(round, name)
		}
	}
	if b.wants("control-follow", serverEtcd) {
		b.cell(round, "control-follow", serverEtcd, b.measureFollow)
	}
	if b.wants("control-large", serverBolt) {
		b.cell(round, "control-large", serverBolt, b.measureLarge)
	}
}

// runWrites measures requests and the approvals of what they made, one after the other.
func (b *bench) runWrites(round int, name string) {
	var approve func() (map[string]float64, float64, error)
	b.cell(round, "control-request", name, func() (map[string]float64, float64, error) {
		requests, approvals, others, err := b.measureWrites(name)
		approve = func() (map[string]float64, float64, error) { return approvals, others, err }
		return requests, others, err
	})
	b.cell(round, "control-approve", name, approve)
}

// measureWrites runs one kind of store. Both figures are of the same server.
func (b *bench) measureWrites(name string) (requests, approvals map[string]float64, others float64, err error) {
	var endpoints string
	var loads []int
	if name != serverBolt {
		cluster, err := b.startMembers()
		if err != nil {
			return nil, nil, 0, err
		}
		defer cluster.stop()
		endpoints = cluster.endpoints()
		loads = cluster.pids()
	}
	if name == serverEtcdPut {
		w := observe(nil, loads)
		requests, err = b.measurePuts(endpoints)
		u := w.end(0)
		return requests, requests, u.others, err
	}
	node, err := b.startControl(endpoints, 0)
	if err != nil {
		return nil, nil, 0, err
	}
	defer node.stop()
	if err := node.furnish(); err != nil {
		return nil, nil, 0, err
	}
	w := observe(tree(node.cmd.Process.Pid), loads)
	made := make([]int, controlWorkers) // how many endpoints each client has asked for
	requests, err = timed(b.seconds, func(worker, i int) error {
		made[worker] = i + 1
		return node.request(worker, i)
	})
	if err != nil {
		return nil, nil, 0, err
	}
	approvals, err = timed(b.seconds, func(worker, i int) error {
		if i >= made[worker] {
			return errDone
		}
		return node.approve(worker, i)
	})
	return requests, approvals, w.end(0).others, err
}

// errDone ends a timed stretch before its time.
var errDone = errors.New("nothing left to do")

// timed has the clients work for some seconds and returns their rate and the time that each operation took.
func timed(seconds float64, do func(worker, i int) error) (map[string]float64, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	began := time.Now()
	end := began.Add(time.Duration(seconds * float64(time.Second)))
	var group sync.WaitGroup
	for worker := range controlWorkers {
		group.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				start := time.Now()
				err := do(worker, i)
				took := time.Since(start)
				mu.Lock()
				if err == nil {
					all = append(all, took)
				} else if !errors.Is(err, errDone) {
					failed = err
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	group.Wait()
	elapsed := time.Since(began)
	if failed != nil || len(all) == 0 {
		return nil, errors.Join(failed, errEmpty(len(all)))
	}
	values := quantiles(all)
	values[keyRate] = float64(len(all)) / elapsed.Seconds()
	return values, nil
}

func errEmpty(n int) error {
	if n == 0 {
		return errors.New("no operation was done")
	}
	return nil
}

// quantiles returns the 50th, 95th and 99th percentile in seconds.
func quantiles(all []time.Duration) map[string]float64 {
	slices.Sort(all)
	at := func(q float64) float64 { return all[min(int(q*float64(len(all))), len(all)-1)].Seconds() }
	return map[string]float64{keyP50: at(0.5), keyP95: at(0.95), keyP99: at(0.99)}
}

// controlNode is a running node with an API.
type controlNode struct {
	*process
	dns    netip.AddrPort
	api    string // its URL
	token  string
	client *http.Client
	target netip.AddrPort
	more   string // lines of its Corefile
}

// startControl starts a node on bolt, or on etcd where there are endpoints of it. Several nodes differ by
// their number.
func (b *bench) startControl(endpoints string, number int) (*controlNode, error) {
	n := b.newControlNode(number)
	p, err := b.start(server{serverBolt, func(dir string) ([]string, error) { return n.configure(b, dir, endpoints) }})
	if err != nil {
		return nil, err
	}
	n.process = p
	if err := p.await(func() error { return n.do(http.MethodGet, "/subscriptions", nil, nil) }); err != nil {
		p.stop()
		return nil, err
	}
	return n, nil
}

func (b *bench) newControlNode(number int) *controlNode {
	at := b.net.dns.Addr().As4()
	at[3] += byte(number)
	addr := netip.AddrFrom4(at)
	secret := sha256.Sum256([]byte("the same for all nodes of a run"))
	return &controlNode{
		dns: netip.AddrPortFrom(addr, b.net.dns.Port()), api: fmt.Sprintf("https://%s:%d", addr, apiPort),
		token:  "ptk_" + base64.RawURLEncoding.EncodeToString(secret[:]),
		target: b.net.targets[0],
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			// The certificate is the one that the node has just made for itself.
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a network of its own
			MaxIdleConnsPerHost: controlWorkers,
			DialContext:         (&net.Dialer{LocalAddr: &net.TCPAddr{IP: b.net.sources[0].AsSlice()}}).DialContext,
		}},
	}
}

// configure writes Corefile and identities.
func (n *controlNode) configure(b *bench, dir, endpoints string) ([]string, error) {
	sum := sha256.Sum256([]byte(n.token))
	identities := fmt.Sprintf(`{"tenants": [{"name": "bench", "id": "00000000-0000-4000-8000-00000000be2c",
 "subscriptions": [{"id": %q, "name": "bench"}], "domains": ["bench.example"], "networks": ["10.0.0.0/8", "127.0.0.0/8"], "targets": ["10.0.0.0/8", "127.0.0.0/8"]}],
 "identities": [{"name": "bench", "tenant": "bench", "roles": [{"subscription": "*", "role": "owner"}], "tokens": [{"sha256": %q}]}]}`,
		subscription, hex.EncodeToString(sum[:]))
	if err := os.WriteFile(filepath.Join(dir, "identities.json"), []byte(identities), 0o600); err != nil {
		return nil, err
	}
	store := "bolt " + filepath.Join(dir, "state.db")
	if endpoints != "" {
		store = "etcd " + endpoints
	}
	return b.corefile(b.postern, dir, fmt.Sprintf(`.:%d {
 bind %s
 linkstore %s
 linkapi %s {
  identities %s
  rate 1000000
  limit endpointsPerNetwork 200000
  limit endpointsPerService 200000
  limit pendingPerConsumer 200000
  limit services 100000
 }
%s privatelink
}
`, n.dns.Port(), n.dns.Addr(), store, strings.TrimPrefix(n.api, "https://"), filepath.Join(dir, "identities.json"), n.more))
}

// do sends one request and decodes the answer into v, nil for none.
func (n *controlNode) do(method, path string, body, v any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	if !strings.Contains(path, apiVersion[1:]) { // a link to the next page has it
		path += apiVersion
	}
	req, err := http.NewRequestWithContext(context.Background(), method, n.api+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+n.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(text, v)
}

const (
	benchGroup = "/subscriptions/" + subscription + "/resourceGroups/bench"
	network    = benchGroup + "/providers/Microsoft.Network/"
)

type object = map[string]any

// furnish makes the group, and a network for each client's endpoints.
func (n *controlNode) furnish() error {
	if err := n.do(http.MethodPut, benchGroup, object{"location": "local"}, nil); err != nil {
		return err
	}
	for worker := range controlWorkers {
		name := fmt.Sprintf("w%d", worker)
		prefix := fmt.Sprintf("10.%d.0.0/16", 100+worker)
		if err := n.do(http.MethodPut, network+"virtualNetworks/"+name, object{"location": "local", "properties": object{
			"addressSpace": object{"addressPrefixes": []string{prefix}},
			"subnets": []object{{"name": "pe", "properties": object{
				"addressPrefix": prefix, "privateLinkServiceNetworkPolicies": "Disabled"}}},
		}}, nil); err != nil {
			return err
		}
	}
	return nil
}

// service makes the service that a client's endpoints from number i on are of.
func (n *controlNode) service(worker, i int) error {
	return n.do(http.MethodPut, network+"privateLinkServices/"+serviceName(worker, i), object{
		"location": "local", "tags": object{"postern-port": fmt.Sprint(n.target.Port())},
		"properties": object{
			"destinationIPAddress": n.target.Addr().String(),
			"fqdns":                []string{serviceName(worker, i) + ".bench.example"},
			"visibility":           object{"subscriptions": []string{subscription}},
			"ipConfigurations": []object{{"name": "nat", "properties": object{
				"privateIPAllocationMethod": "Dynamic", "subnet": object{"id": subnetID(worker)}}}},
		}}, nil)
}

func serviceName(worker, i int) string { return fmt.Sprintf("s%d-%d", worker, i/perSubnet) }

func subnetID(worker int) string {
	return fmt.Sprintf("%svirtualNetworks/w%d/subnets/pe", network, worker)
}

func endpointPath(worker, i int) string {
	return fmt.Sprintf("%sprivateEndpoints/e%d-%d", network, worker, i)
}

// request asks for an endpoint, and first for its service where that is a new one.
func (n *controlNode) request(worker, i int) error {
	if i%perSubnet == 0 {
		if err := n.service(worker, i); err != nil {
			return err
		}
	}
	return n.do(http.MethodPut, endpointPath(worker, i), object{"location": "local", "properties": object{
		"subnet": object{"id": subnetID(worker)},
		"manualPrivateLinkServiceConnections": []object{{"name": "c", "properties": object{
			"privateLinkServiceId": network + "privateLinkServices/" + serviceName(worker, i)}}},
	}}, nil)
}

// approve finds the connection of an endpoint and approves it.
func (n *controlNode) approve(worker, i int) error {
	var e struct {
		Properties struct {
			ResourceGUID string `json:"resourceGuid"`
		} `json:"properties"`
	}
	if err := n.do(http.MethodGet, endpointPath(worker, i), nil, &e); err != nil {
		return err
	}
	return n.decide(worker, i, e.Properties.ResourceGUID)
}

func (n *controlNode) decide(worker, i int, guid string) error {
	return n.do(http.MethodPut, fmt.Sprintf("%sprivateLinkServices/%s/privateEndpointConnections/e%d-%d.%s", network, serviceName(worker, i), worker, i, guid),
		object{"properties": object{"privateLinkServiceConnectionState": object{"status": "Approved", "description": "bench"}}}, nil)
}

// workerAddr is where a client of a worker's network asks DNS from.
func workerAddr(worker int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(100 + worker), 255, 1})
}

// ask returns the addresses that a node answers a client with.
func (n *controlNode) ask(from netip.Addr, name string) ([]dns.RR, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c := dns.Client{Timeout: time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}, Timeout: time.Second}}
	r, _, err := c.Exchange(m, n.dns.String())
	if err != nil {
		return nil, err
	}
	return r.Answer, nil
}
