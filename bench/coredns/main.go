// Command coredns is the peer that the benchmark measures Postern's answers against: CoreDNS of the
// module version that Postern is built on, with the plugins file and hosts. The handlers and the
// server are those of the stock program; only the plugins that the benchmark doesn't configure are
// left out, because the full bundle would bring some 150 modules into our go.sum.
package main

import (
	_ "github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/hosts"
)

func main() { coremain.Run() }
