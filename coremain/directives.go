package coremain

import (
	"fmt"
	"slices"
	"sync"

	"github.com/coredns/coredns/core/dnsserver"
)

// directives are all that a Corefile may hold, in the order in which the plugins see a query and in
// which setup and callbacks run, whatever their order in the file. It is that of CoreDNS's
// plugin.cfg, with ours put in where these rules say:
//
//   - link* stand after health, prometheus, errors and log. Callbacks run in this order, so at the
//     end health's lame duck period passes before the data plane drains, and what they report is
//     logged and counted. linkstore is the first of them: the others declare objects for its state.
//   - rewrite stands before acl and privatelink, as it stands before acl and cache in CoreDNS: a
//     question that is rewritten to the name of a service is judged and answered as that name. The
//     other way around, privatelink would pass on a name that a rule makes private, and the public
//     address would be answered.
//   - acl stands before privatelink, so that a blocked client learns nothing of private names.
//   - privatelink stands before cache. Its answers depend on who asks; a cache before it would hand
//     the address of one network to another. linkexit stands between the two: it judges what privatelink
//     passes on, and a name that may not be asked for isn't answered from what others have asked. header
//     and minimal come later too and leave its answers as they are.
//   - loadbalance and dnssec stand before privatelink, where CoreDNS has them before and after cache: they rotate and
//     sign the answers of privatelink too. A zone that is signed here is signed whole, with what privatelink
//     passes on.
//   - transfer is asked by privatelink for its zones, with the view of the peer, and stands where CoreDNS has it for
//     those of file.
//   - loop is not here: where it finds one it ends the process, with all connections. privatelink looks for loops.
var directives = []string{
	"metadata",
	"proxyproto",
	"https",
	"timeouts",
	"multisocket",
	"reload",
	"nsid",
	"bufsize",
	"bind",
	"debug",
	"ready",
	"health",
	"pprof",
	"shed",
	"prometheus",
	"errors",
	"log",
	"linkstore",
	"linknetwork",
	"linkservice",
	"linkendpoint",
	"linkpolicy",
	"linkproxy",
	"linkapi",
	"linkexport",
	"local",
	"any",
	"chaos",
	"loadbalance",
	"tsig",
	"rewrite",
	"acl",
	"dnssec",
	"privatelink",
	"linkexit",
	"cache",
	"header",
	"tls",
	"minimal",
	"template",
	"transfer",
	"hosts",
	"file",
	"forward",
	"view",
}

// own are the directives of Postern. A Corefile without any of them is refused.
var own = []string{"linkstore", "linknetwork", "linkservice", "linkendpoint", "linkpolicy", "linkproxy", "linkapi", "linkexport", "privatelink", "linkexit"}

// Directives returns the directives in their order.
func Directives() []string { return slices.Clone(directives) }

// Setup makes this process speak our directives: to be called once before Caddy starts, also by
// tests that start a server in their own process. Further calls do nothing.
func Setup() error { return setup() }

var setup = sync.OnceValue(func() error {
	if err := dnsserver.Register(); err != nil {
		return err
	}
	if err := dnsserver.SetDirectives(directives); err != nil {
		return fmt.Errorf("order of directives: %w", err)
	}
	name()
	return nil
})
