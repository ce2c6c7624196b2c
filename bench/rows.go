//go:build linux

package main

import "fmt"

// proxyTest is one kind of load.
type proxyTest struct {
	test
	kind    string
	conns   int
	beside  int                     // bulk streams to the provider meanwhile
	servers func(b *bench) []server // nil: proxyServers
	hello   bool                    // connections begin with a ClientHello
	part    bool                    // the proxy has a part of its core, so that it is the limit
}

// Requests per second of the tests with a fixed rate.
const fixedRate = 5000

// bulkBeside is how many streams there are beside requests.
const bulkBeside = 4

var (
	columnGbit        = column{key: keyGbit, head: "Gbit/s", digits: 1, better: higher}
	columnBulkCPU     = column{key: keyCPUPerGB, head: "CPU s/GB", digits: 3, better: lower}
	columnIdle        = column{key: keyIdleTotal, head: "KiB per flow", scale: 1024, digits: 1, better: lower}
	columnCore        = column{key: keyServerCPU, head: "core %", scale: 0.01}
	columnConnections = column{key: keyRate, head: "k connections/s", scale: 1e3, digits: 1, better: higher}
	columnRequests    = column{key: keyRate, head: "k requests/s", scale: 1e3, digits: 1, better: higher}
	columnEach        = column{key: keyEachCPU, head: "CPU us each", scale: 1e-6, digits: 1, better: lower}
	columnP50         = column{key: keyP50, head: "p50 us", scale: 1e-6, digits: 0, better: lower}
	columnP99         = column{key: keyP99, head: "p99 us", scale: 1e-6, digits: 0, better: lower}
	columnFlows       = column{key: keyFlows, head: "flows"}
	columnTimes       = column{key: keyTimes, head: "times that of 100 flows", digits: 2}
)

// idleFlows is how many there are in the tests of memory and of the cut.
func (b *bench) idleFlows() int { return min(10_000, b.flows) }

func (b *bench) proxyTests() []proxyTest {
	of := func(name, title string, saturates bool, columns ...column) test {
		return test{name: name, title: title, baseline: serverNginx, columns: columns, saturates: saturates}
	}
	bulk := []column{columnGbit, columnBulkCPU, columnCore}
	plain := func(c column) column {
		c.better = neither
		return c
	}
	each := func(first column) []column {
		return []column{first, columnEach, plain(columnP50), plain(columnP99), columnCore}
	}
	paced := []column{columnP50, columnP99, columnEach, columnCore}
	header := of("connect-header", "Proxy: the same, each with a PROXY header to the target", true, each(columnConnections)...)
	header.baseline = serverHAProxy
	tests := []proxyTest{
		{test: of("up-1", "Proxy: client to provider, 1 stream", true, bulk...), kind: loadUpload, conns: 1},
		{test: of("up-16", "Proxy: client to provider, 16 streams", true, bulk...), kind: loadUpload, conns: 16},
		{test: of("down-1", "Proxy: provider to client, 1 stream", true, bulk...), kind: loadDownload, conns: 1},
		{test: of("down-16", "Proxy: provider to client, 16 streams", true, bulk...), kind: loadDownload, conns: 16},
		{test: of("up-1-part", "Proxy: client to provider, 1 stream, a quarter of a core", false, bulk...), kind: loadUpload, conns: 1, part: true},
		{test: of("up-16-part", "Proxy: client to provider, 16 streams, a quarter of a core", false, bulk...), kind: loadUpload, conns: 16, part: true},
		{test: of("down-1-part", "Proxy: provider to client, 1 stream, a quarter of a core", false, bulk...), kind: loadDownload, conns: 1, part: true},
		{test: of("down-16-part", "Proxy: provider to client, 16 streams, a quarter of a core", false, bulk...), kind: loadDownload, conns: 16, part: true},
		{test: of("connect", "Proxy: connect, one request and response, close; 32 at a time", true, each(columnConnections)...), kind: loadConnect, conns: 32},
		{test: header, kind: loadConnect, conns: 32, servers: (*bench).headerServers},
		{test: of("request", "Proxy: requests on 64 persistent connections", true, each(columnRequests)...), kind: loadRequest, conns: 64},
		{test: of("rate", fmt.Sprintf("Proxy: %d requests/s on 64 persistent connections", fixedRate), false, paced...), kind: loadRate, conns: 64},
		{test: of("beside", fmt.Sprintf("Proxy: the same beside %d bulk streams", bulkBeside), false,
			columnP50, columnP99, column{key: keyRate, head: "k requests/s", scale: 1e3, digits: 1}, plain(columnGbit), columnCore),
			kind: loadRate, conns: 64, beside: bulkBeside},
		{test: of("flat-few", fmt.Sprintf("Proxy: %d requests/s on %d persistent connections", fixedRate, fewFlows), false, append(paced[2:], columnFlows)...),
			kind: loadRate, conns: min(fewFlows, b.flows)},
		{test: of("flat-most", fmt.Sprintf("Proxy: %d requests/s on as many persistent connections as %d descriptors allow, at most 50,000", fixedRate, b.limit), false,
			append(paced[2:], columnTimes, columnFlows)...), kind: loadRate, conns: b.flows},
		{test: of("idle", fmt.Sprintf("Proxy: %d idle flows", b.idleFlows()), false, columnIdle,
			column{key: keyIdleRSS, head: "resident KiB", scale: 1024, digits: 1},
			column{key: keyOwnKernel, head: "kernel KiB", scale: 1024, digits: 1},
			column{key: keyDescriptors, head: "descriptors", digits: 1}, columnFlows), kind: loadIdle, conns: b.idleFlows()},
	}
	return append(tests, b.tlsTests()...)
}

// fewFlows is what the cost of a request on many flows is compared with.
const fewFlows = 100

// costOfMany says what a request costs on many flows, in that on few with the same server in the same round.
func (r results) costOfMany() {
	for _, s := range r {
		few, found := r.find(s.Round, "flat-few", s.Server)
		if cost := few.Values[keyEachCPU]; s.Test == "flat-most" && s.Err == "" && found && cost > 0 {
			s.Values[keyTimes] = s.Values[keyEachCPU] / cost
		}
	}
}

// proxyServers returns the servers of the proxy tests that can be run.
func (b *bench) proxyServers() []server {
	servers := []server{{name: serverDirect}, b.relay()}
	if b.has("haproxy") {
		servers = append(servers, b.haproxy(serverHAProxy, "", ""),
			b.haproxy(serverHAProxyTuned, "  tune.bufsize 262144\n  tune.pipesize 1048576\n  maxpipes 128", "  option splice-auto"))
	}
	if b.has("nginx") {
		servers = append(servers, b.nginx(), b.nginxBy(serverNginxTuned, "", "proxy_pass b; proxy_buffer_size 256k;"))
	}
	if b.postern != "" {
		servers = append(servers, server{serverPostern, b.posternProxy})
	}
	return servers
}

// headerServers are those that tell the target who the client is. nginx has version 1 alone, which is text.
func (b *bench) headerServers() []server {
	var servers []server
	if b.has("haproxy") {
		servers = append(servers, b.haproxy(serverHAProxy, "", "  default-server send-proxy-v2"))
	}
	if b.has("nginx") {
		servers = append(servers, b.nginxBy(serverNginxV1, "", "proxy_pass b; proxy_protocol on;"))
	}
	if b.postern != "" {
		servers = append(servers, server{serverPostern, b.posternHeader})
	}
	return servers
}
