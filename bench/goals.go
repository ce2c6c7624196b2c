//go:build linux

package main

// goals are what Postern promises. A goal that isn't met is printed, not an error: whoever reads it decides.
var goals = append(proxyGoals(), []goal{
	{text: "in the chain, privatelink name: at least 2.5 times CoreDNS file", test: "dns-private", server: serverPosternChain, column: dnsColumns[0], against: []string{serverFile}, bound: 2.5},
	{text: "in the chain, public name: at least 2.5 times CoreDNS file", test: "dns-public", server: serverPosternChain, column: dnsColumns[0], against: []string{serverFile}, bound: 2.5},
	{text: "in the chain, one in ten unknown: at least 2.5 times CoreDNS file", test: "dns-misses", server: serverPosternChain, column: dnsColumns[0], against: []string{serverFile}, bound: 2.5},
	{text: "fastpath: at least 5 times CoreDNS file", test: "dns-private", server: serverPostern, column: dnsColumns[0], against: []string{serverFile}, bound: 5},
	{text: "fastpath, a quarter of a core: at least 5 times CoreDNS file", test: "dns-part", server: serverPostern, column: dnsColumns[0], against: []string{serverFile}, bound: 5},
	{text: "fastpath: a query costs at most a seventh of CoreDNS file's", test: "dns-private", server: serverPostern, column: dnsColumns[1], against: []string{serverFile}, bound: 7},
	{text: "fastpath, a quarter of a core: a query costs at most a seventh of CoreDNS file's", test: "dns-part", server: serverPostern, column: dnsColumns[1], against: []string{serverFile}, bound: 7},
	{text: "fastpath, bursts: at least 1.2 times NSD", test: "dns-burst", server: serverPostern, column: dnsColumns[0], against: []string{serverNSD}, bound: 1.2},
	{text: "fastpath, bursts: at least 1.2 times Knot", test: "dns-burst", server: serverPostern, column: dnsColumns[0], against: []string{serverKnot}, bound: 1.2},
	{text: "fastpath, two cores: at least NSD with two servers", test: "dns-two", server: serverPostern, column: dnsColumns[0], against: []string{serverNSD}, bound: 1},
	{text: "fastpath, two cores, in bursts: at least NSD with two servers", test: "dns-two-burst", server: serverPostern, column: dnsColumns[0], against: []string{serverNSD}, bound: 1},
	{text: "fastpath, 20,000 queries/s: an average no longer than NSD's", test: "dns-rate", server: serverPostern, column: rateColumns[0], against: []string{serverNSD}, bound: 1},
	{text: "fastpath, 20,000 queries/s: 99 of 100 within 1 ms", test: "dns-rate", server: serverPostern, column: rateColumns[1], bound: 1000},
	{text: "fastpath, 100,000 names: a change of one endpoint is answered within 10 ms", test: changeTest().name, server: serverPostern, column: changeTest().columns[1], bound: 10},
	{text: "connections with pin tls: at least 1.2 times HAProxy's with req.ssl_sni", test: "hello", server: serverPosternPinned, column: columnConnections, against: []string{serverHAProxySNI}, bound: 1.2},
	{text: "pin tls adds at most 60 us to the first byte", test: "first-byte", server: serverPosternPinned, column: columnAdded, bound: 60},
	{text: "a policy program adds at most 250 us", test: "first-byte", server: serverPosternProgram, column: columnAdded, bound: 250},
	{text: "an idle flow: at most 40 KiB in all", test: "idle", server: serverPostern, column: columnIdle, bound: 40},
	{text: "10,000 idle flows, or as many as the table says, cut within 2 s of the signal", test: "cut", server: serverPostern, column: columnCut, bound: 2},
	{text: "100,000 endpoints: start within 2 s", test: "control-large", server: serverBolt, column: columnStart, bound: 2},
	{text: "100,000 endpoints: at most 400 MB", test: "control-large", server: serverBolt, column: columnMemory, bound: 400},
	{text: "100,000 endpoints: a page of a list within 50 ms", test: "control-large", server: serverBolt, column: columnPage, bound: 50},
}...)

// everyPeer are those that a figure must be better than the best of.
var everyPeer = []string{serverHAProxy, serverHAProxyTuned, serverNginx, serverNginxTuned, serverRelay}

// proxyGoals are those of the data plane.
func proxyGoals() []goal {
	var all []goal
	for _, t := range []struct{ name, title string }{
		{"up-1", "1 stream to the provider"}, {"up-16", "16 streams to the provider"},
		{"down-1", "1 stream to the client"}, {"down-16", "16 streams to the client"},
		{"up-1-part", "1 stream to the provider, a quarter of a core"}, {"up-16-part", "16 streams to the provider, a quarter of a core"},
		{"down-1-part", "1 stream to the client, a quarter of a core"}, {"down-16-part", "16 streams to the client, a quarter of a core"},
	} {
		all = append(all,
			goal{text: t.title + ": at least 1.1 times HAProxy tuned", test: t.name, server: serverPostern, column: columnGbit, against: []string{serverHAProxyTuned}, bound: 1.1},
			goal{text: t.title + ": at least twice HAProxy and nginx", test: t.name, server: serverPostern, column: columnGbit, against: []string{serverHAProxy, serverNginx}, bound: 2},
			goal{text: t.title + ": at most 0.7 of the CPU of HAProxy tuned for a gigabyte, a ratio of 1.43", test: t.name, server: serverPostern, column: columnBulkCPU, against: []string{serverHAProxyTuned}, bound: 1 / 0.7},
		)
	}
	one := func(text, test string, c column, bound float64, against ...string) {
		all = append(all, goal{text: text, test: test, server: serverPostern, column: c, against: against, bound: bound})
	}
	one("connections with a PROXY header: at least 1.25 times the better of HAProxy and nginx", "connect-header", columnConnections, 1.25, serverHAProxy, serverNginxV1)
	one("requests: at least 1.15 times the best", "request", columnRequests, 1.15, everyPeer...)
	one("5,000 requests/s: a p50 no worse than the best", "rate", columnP50, 1, everyPeer...)
	one("5,000 requests/s: a p99 no worse than the best", "rate", columnP99, 1, everyPeer...)
	one("beside bulk: half of HAProxy's p50", "beside", columnP50, 2, serverHAProxy)
	one("an idle flow: less than half of HAProxy's memory", "idle", columnIdle, 2, serverHAProxy)
	one("many flows: a request costs at most a fifth more than with 100", "flat-most", columnTimes, 1.2)
	return all
}
