package coremain

import (
	"net"
	"strings"

	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/parse"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/miekg/dns"
)

// forwarding is a use of forward: whom a server block asks for which names.
type forwarding struct {
	zones  []string // keys of the server block
	from   string   // of forward: names below it
	except []string // but those below these
	plain  []string // servers that are asked by plain DNS, with byTCP before those that are asked by TCP alone
	others []string // servers that are asked otherwise, as they are written
}

// forwards returns the uses of forward, in the order of the file.
func (c *corefile) forwards() (all []forwarding) {
	for _, b := range c.blocks {
		var zones []string
		for _, key := range b.Keys {
			names, _ := keyZones(key)
			for _, name := range names {
				_, at, _ := strings.Cut(name, "://")
				zones = append(zones, at[:strings.LastIndexByte(at, ':')])
			}
		}
		for _, words := range uses(b.Tokens["forward"], "forward") {
			all = append(all, forwardingOf(zones, words))
		}
	}
	return all
}

func forwardingOf(zones []string, words []caddyfile.Token) forwarding {
	f := forwarding{zones: zones}
	args := arguments(words)
	if len(args) > 0 {
		f.from, args = plugin.Name(args[0].Text).Normalize(), args[1:]
	}
	for _, t := range property(words, "except") {
		f.except = append(f.except, plugin.Name(t.Text).Normalize())
	}
	proto := ""
	if hasWord(words, "force_tcp") {
		proto = byTCP
	}
	for _, t := range args {
		if conf, err := dns.ClientConfigFromFile(t.Text); err == nil {
			for _, s := range conf.Servers {
				f.plain = appendNew(f.plain, proto+net.JoinHostPort(s, conf.Port))
			}
			continue
		}
		kind, host := parse.Transport(t.Text)
		if at, err := parse.HostPort(host, transport.Port); err == nil && kind == transport.DNS {
			f.plain = appendNew(f.plain, proto+at)
		} else {
			f.others = appendNew(f.others, t.Text)
		}
	}
	return f
}

// takes reports whether forward asks for a name, once its server block has it.
func (f *forwarding) takes(name string) bool {
	for _, e := range f.except {
		if dns.IsSubDomain(e, name) {
			return false
		}
	}
	return dns.IsSubDomain(f.from, name)
}

// upstreamsOf returns the servers that the node would ask for a name: those of the first forward that takes it in the server
// block with the longest zone; in several where they have the same zone, on other addresses or in other views.
func upstreamsOf(all []forwarding, name string) (plain, others []string) {
	name = dns.Fqdn(strings.ToLower(name))
	longest, block := -1, []string(nil) // the keys of the block that was looked at last: a slice of its own
	for _, f := range all {
		zone := -1
		for _, z := range f.zones {
			if dns.IsSubDomain(z, name) {
				zone = max(zone, dns.CountLabel(z))
			}
		}
		if zone < 0 || zone < longest || !f.takes(name) {
			continue
		}
		if zone > longest {
			longest, block, plain, others = zone, nil, nil, nil
		}
		if len(block) > 0 && &block[0] == &f.zones[0] {
			continue // one before it in the same block takes the name
		}
		block = f.zones
		for _, s := range f.plain {
			plain = appendNew(plain, s)
		}
		for _, s := range f.others {
			others = appendNew(others, s)
		}
	}
	return plain, others
}
