//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/postern-link/postern/policy/policyplugin"
)

// The servers of the tests in which a connection begins with a ClientHello.
const (
	serverHAProxySNI     = "HAProxy, req.ssl_sni"
	serverNginxPreread   = "nginx stream, ssl_preread"
	serverPosternAddress = "Postern, pin address"
	serverPosternPinned  = "Postern, pin tls"
	serverPosternProgram = "Postern, pin tls and a program"
)

// serverName is the name that the hello carries and that the servers let through.
const serverName = "contoso.bench.example"

// keyAdded is what a server adds to the latency of the one before it in firstBytes, in seconds.
const keyAdded = "added"

var columnAdded = column{key: keyAdded, head: "added us", scale: 1e-6, digits: 0, better: lower}

// firstBytes are the servers of the test of latency: each does more than the one before.
var firstBytes = []string{serverPosternAddress, serverPosternPinned, serverPosternProgram}

func (b *bench) tlsTests() []proxyTest {
	each := []column{
		columnConnections,
		{key: keyEachCPU, head: "CPU us each", scale: 1e-6, digits: 1, better: lower},
		{key: keyP50, head: "p50 us", scale: 1e-6},
		{key: keyP99, head: "p99 us", scale: 1e-6},
		columnCore,
	}
	return []proxyTest{
		{
			test: test{name: "hello", title: "Proxy: connect, ClientHello, answer, close, by name; 32 at a time",
				baseline: serverHAProxySNI, columns: each, saturates: true},
			kind: loadConnect, conns: 32, hello: true,
			servers: func(b *bench) []server { return append(b.namePeers(), b.nodesByName(false)...) },
		},
		{
			test: test{name: "first-byte", title: "Proxy: from connect to the first byte of the answer to a ClientHello; one at a time",
				baseline: serverPosternAddress, columns: []column{
					{key: keyP50, head: "p50 us", scale: 1e-6, digits: 0, better: lower}, columnAdded,
					{key: keyP99, head: "p99 us", scale: 1e-6}}},
			kind: loadConnect, conns: 1, hello: true,
			servers: func(b *bench) []server { return b.nodesByName(true) },
		},
	}
}

// namePeers are those that look at the server name of a hello too.
func (b *bench) namePeers() []server {
	servers := []server{{name: serverDirect}}
	if b.has("haproxy") {
		servers = append(servers, b.haproxyBy(serverHAProxySNI, "", "", fmt.Sprintf(`  tcp-request inspect-delay 5s
  tcp-request content accept if { req.ssl_hello_type 1 }
  use_backend b if { req.ssl_sni -i %s }`, serverName)))
	}
	if b.has("nginx") {
		servers = append(servers, b.nginxBy(serverNginxPreread,
			fmt.Sprintf("  map $ssl_preread_server_name $to { default none; %s b; }\n  upstream none { server 127.0.0.1:1; }\n", serverName),
			"ssl_preread on; proxy_pass $to;"))
	}
	return servers
}

// nodesByName are the nodes that don't look at the hello, that do, and that also ask a program.
func (b *bench) nodesByName(program bool) []server {
	if b.postern == "" {
		return nil
	}
	one := func(name, pin, more string) server {
		return server{name, func(dir string) ([]string, error) { return b.posternBy(dir, pin, more) }}
	}
	servers := []server{one(serverPosternAddress, "pin address", ""), one(serverPosternPinned, "pin tls", "")}
	if !program {
		return servers
	}
	return append(servers, server{serverPosternProgram, func(dir string) ([]string, error) {
		text, err := os.ReadFile(b.self)
		if err != nil {
			return nil, err
		}
		return b.posternBy(dir, "pin tls", fmt.Sprintf(` linkpolicy bench {
  program %s -role policy
  checksum sha256:%x
 }
`, b.self, sha256.Sum256(text)))
	}})
}

// addedLatency says what each server of firstBytes adds to the one before it in the same round.
func (r results) addedLatency() {
	for i, name := range firstBytes[1:] {
		for _, s := range r {
			before, found := r.find(s.Round, s.Test, firstBytes[i])
			if s.Test == "first-byte" && s.Server == name && s.Err == "" && found {
				s.Values[keyAdded] = s.Values[keyP50] - before.Values[keyP50]
			}
		}
	}
}

// clientHello returns the record that crypto/tls begins with, post-quantum key share included.
func clientHello() ([]byte, error) {
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		defer near.Close()
		_ = tls.Client(near, &tls.Config{ServerName: serverName}).Handshake() // nobody answers
	}()
	b := make([]byte, 4<<10)
	n, err := far.Read(b)
	if err != nil || n < tlsHeader || n != tlsHeader+int(b[3])<<8+int(b[4]) || !bytes.Contains(b, []byte(serverName)) {
		return nil, errors.Join(err, fmt.Errorf("a hello of %d bytes", n))
	}
	return b[:n], nil
}

// allowAll is the policy program of the benchmark.
type allowAll struct{ policyplugin.Base }

func (allowAll) Authorize(context.Context, *policyplugin.Flow) (policyplugin.Verdict, error) {
	return policyplugin.Allow(), nil
}

// posternBy configures one service with the backend as its targets and a way to pin it.
func (b *bench) posternBy(dir, pin, more string) ([]string, error) {
	names := ""
	if pin != "pin address" {
		names = "  names " + serverName + "\n"
	}
	return b.posternWith(dir, names+"  "+pin+"\n", more)
}
