package coremain

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/coredns/caddy/caddyfile"
)

// listener is an address that a directive of CoreDNS listens on for something else than endpoints.
type listener struct {
	at    caddyfile.Token // the name of the directive
	text  string          // the address as it is written, or the default
	host  string          // "" is all addresses
	words []caddyfile.Token
}

// hostDefaults are the directives that listen beside DNS, with where they do so by default.
var hostDefaults = map[string]string{"prometheus": "localhost", "pprof": "localhost", "health": "", "ready": ""}

// listeners returns where a directive of a block listens.
func listeners(b caddyfile.ServerBlock, name string) (found []listener) {
	for _, words := range uses(b.Tokens[name], name) {
		l := listener{at: words[0], text: hostDefaults[name], host: hostDefaults[name], words: words}
		if args := arguments(words); len(args) > 0 {
			host, _, err := net.SplitHostPort(args[0].Text)
			if err != nil {
				continue // the plugin says it better
			}
			l.text, l.host = args[0].Text, host
		}
		found = append(found, l)
	}
	return found
}

// addrs returns the addresses that the listener is known to be bound to: none where it is all, or a
// name that only this machine knows.
func (l listener) addrs() []netip.Addr {
	if l.host == "localhost" {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	if addr, err := netip.ParseAddr(l.host); err == nil && !addr.IsUnspecified() {
		return []netip.Addr{addr.WithZone("").Unmap()}
	}
	return nil
}

// privateListeners: what tells about the inside is not offered to everybody without TLS (C10).
func privateListeners(c *corefile) *problem {
	for _, b := range c.blocks {
		for _, name := range []string{"prometheus", "pprof"} {
			for _, l := range listeners(b, name) {
				addr, _ := netip.ParseAddr(l.host)
				if (l.host == "" || addr.IsUnspecified()) && !hasWord(l.words[1:], "tls") {
					return &problem{fileOf(c, l.at), l.at.Line, name, fmt.Sprintf("%q listens on all addresses in clear; give it one address, such as 127.0.0.1%s", l.text, tlsHint(name))}
				}
			}
		}
	}
	return nil
}

// tlsHint is what else is allowed for a listener: the metrics can be served with TLS.
func tlsHint(name string) string {
	if name == "prometheus" {
		return ", or a tls file"
	}
	return ""
}

// ownAddresses: nothing else listens where endpoints are or may come to be (C08, C10). What a consumer
// reaches under an endpoint's address is its service alone. The directives look at the addresses of server blocks
// themselves, interfaces included, but don't see the blocks that have none of them.
func ownAddresses(c *corefile) *problem {
	pools := declaredPools(c)
	for _, b := range c.blocks {
		for _, words := range uses(b.Tokens["bind"], "bind") {
			for _, arg := range arguments(words) {
				if addr, err := netip.ParseAddr(arg.Text); err == nil {
					if p := taken(c, pools, words[0], arg.Text, addr.WithZone("").Unmap()); p != nil {
						return p
					}
				}
			}
		}
		for _, name := range []string{"prometheus", "pprof", "health", "ready", "linkapi"} {
			for _, l := range listeners(b, name) {
				for _, addr := range l.addrs() {
					if p := taken(c, pools, l.at, l.text, addr); p != nil {
						return p
					}
				}
			}
		}
	}
	return nil
}

// pool is where endpoints are or may come to be: all of them are in one.
type pool struct {
	at     caddyfile.Token
	prefix netip.Prefix
}

// declaredPools returns the pools that the Corefile declares. What is wrong with one linknetwork says.
func declaredPools(c *corefile) (pools []pool) {
	for _, b := range c.blocks {
		for _, words := range uses(b.Tokens["linknetwork"], "linknetwork") {
			for _, t := range property(words, "endpoints") {
				if p, err := netip.ParsePrefix(t.Text); err == nil {
					pools = append(pools, pool{t, p})
				}
			}
		}
	}
	return pools
}

// taken returns the problem that a directive listens on an address of a pool, or nil.
func taken(c *corefile, pools []pool, directive caddyfile.Token, text string, addr netip.Addr) *problem {
	for _, p := range pools {
		if p.prefix.Contains(addr) {
			return &problem{fileOf(c, directive), directive.Line, directive.Text, fmt.Sprintf("%q is in the pool %s at %s:%d; endpoints need addresses of their own",
				text, p.prefix, fileOf(c, p.at), p.at.Line)}
		}
	}
	return nil
}

// arguments returns the words on the line of a directive after its name, without an opening brace.
func arguments(words []caddyfile.Token) []caddyfile.Token {
	for i, t := range words {
		if t.Text == "{" || !sameLine(t, words[0]) {
			return words[1:i]
		}
	}
	return words[1:]
}

// property returns the arguments of the lines of a block that begin with a name.
func property(words []caddyfile.Token, name string) (args []caddyfile.Token) {
	for i := 1; i < len(words); i++ {
		if words[i].Text == name && !sameLine(words[i], words[i-1]) {
			args = append(args, arguments(words[i:])...)
		}
	}
	return args
}

func sameLine(a, b caddyfile.Token) bool { return a.Line == b.Line && a.File == b.File }
