package coremain

import (
	"fmt"
	"strings"

	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/parse"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/miekg/dns"
)

// rules are what a Corefile as a whole must obey beyond Caddy's grammar, in the order in which they
// are looked at. Each returns what is wrong, or nil.
var rules = []func(*corefile) *problem{notEmpty, hasOwn, servedHere, noTwice, trustedProxies, privateListeners, ownAddresses, ownPorts}

// notEmpty: there is a server block, and each has directives. A block without any would take the
// zone's queries and refuse them all.
func notEmpty(c *corefile) *problem {
	if len(c.blocks) == 0 {
		return &problem{c.path, 1, "", "no server block: a Corefile needs at least \".:53 { ... }\" with privatelink in it"}
	}
	lines := c.keyLines()
	for i, b := range c.blocks {
		if len(b.Tokens) == 0 {
			return &problem{c.path, lines[i][0], "", "server block " + quote(b.Keys[0]) + " holds no directive"}
		}
	}
	return nil
}

// hasOwn: a server that has nothing of Postern in it isn't one that somebody wanted.
func hasOwn(c *corefile) *problem {
	for _, b := range c.blocks {
		for _, name := range own {
			if len(b.Tokens[name]) > 0 {
				return nil
			}
		}
	}
	return &problem{c.path, 1, "", "no server block holds a directive of Postern: one of " + strings.Join(own, ", ") + " is needed"}
}

// servedHere: the server type would serve gRPC, QUIC and HTTP/3 for a key that says so. None of them
// is part of this build. It would serve in clear for one of TLS or HTTPS without a certificate.
func servedHere(c *corefile) *problem {
	lines := c.keyLines()
	for i, b := range c.blocks {
		for j, key := range b.Keys {
			switch t, _ := parse.Transport(key); t {
			case transport.DNS:
			case transport.TLS, transport.HTTPS:
				if len(b.Tokens["tls"]) == 0 {
					return &problem{c.path, lines[i][j], "", fmt.Sprintf("server block %s has no \"tls CERT KEY\": it would be served in clear", quote(key))}
				}
			default:
				return &problem{c.path, lines[i][j], "", fmt.Sprintf("server block %s: %s is not served by this program; dns:// (or nothing), tls:// and https:// are allowed", quote(key), t)}
			}
		}
	}
	return nil
}

// noTwice: no zone is served twice at the same place, whatever its case and final dot. CoreDNS finds
// this too, when the servers are made, but without saying where.
func noTwice(c *corefile) *problem {
	lines := c.keyLines()
	seen := map[string]int{}
	for i, b := range c.blocks {
		if len(b.Tokens["view"]) > 0 {
			continue // a view is a second answer to the same zone on purpose
		}
		for j, key := range b.Keys {
			zones, err := keyZones(key)
			if err != nil {
				return &problem{c.path, lines[i][j], "", fmt.Sprintf("server block %s: %v", quote(key), err)}
			}
			for _, zone := range zones {
				at := zone + " " + words(b.Tokens["bind"])
				if first, twice := seen[at]; twice {
					return &problem{c.path, lines[i][j], "", fmt.Sprintf("server block %s serves %s again, which line %d serves already", quote(key), zone, first)}
				}
				seen[at] = lines[i][j]
			}
		}
	}
	return nil
}

// keyZones returns what a key of a server block stands for, as CoreDNS reads it: "dns://zone.:port",
// several for a prefix that isn't at an octet boundary.
func keyZones(key string) ([]string, error) {
	trans, rest := parse.Transport(key)
	hosts, port, err := plugin.SplitHostPort(rest)
	if err != nil {
		return nil, err
	}
	if port == "" {
		switch trans {
		case transport.TLS:
			port = transport.TLSPort
		case transport.HTTPS:
			port = transport.HTTPSPort
		default:
			port = dnsserver.Port
		}
	}
	var zones []string
	for _, h := range hosts {
		if _, _, err := plugin.SplitHostPort(dns.Fqdn(h)); err != nil {
			return nil, err
		}
		zones = append(zones, fmt.Sprintf("%s://%s:%s", trans, plugin.Name(h).Normalize(), port))
	}
	return zones, nil
}

func words(tokens []caddyfile.Token) string {
	var s []string
	for _, t := range tokens {
		s = append(s, t.Text)
	}
	return strings.Join(s, " ")
}

// trustedProxies: CoreDNS's proxyproto takes a header from everybody when it has no allow list. A
// client could then choose the network that it is answered for.
func trustedProxies(c *corefile) *problem {
	for _, b := range c.blocks {
		tokens := b.Tokens["proxyproto"]
		if len(tokens) == 0 {
			continue
		}
		allowed := false
		for i, t := range tokens {
			allowed = allowed || t.Text == "allow" && i+1 < len(tokens) && tokens[i+1].Line == t.Line
		}
		if !allowed {
			return &problem{fileOf(c, tokens[0]), tokens[0].Line, "proxyproto", "without \"allow PREFIX...\" every client could say who it is; name the proxies that may"}
		}
	}
	return nil
}

func hasWord(tokens []caddyfile.Token, word string) bool {
	for _, t := range tokens {
		if t.Text == word {
			return true
		}
	}
	return false
}

// fileOf returns the file that a word stands in: that of an import, or the Corefile itself.
func fileOf(c *corefile, t caddyfile.Token) string {
	if t.File != "" {
		return t.File
	}
	return c.path
}
