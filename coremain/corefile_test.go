package coremain

import (
	"strings"
	"testing"
)

// TestParseCorefile holds what is refused before any directive is set up, with the whole message.
func TestParseCorefile(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"minimal":                        {".:53 {\n privatelink\n}\n", ""},
		"without braces":                 {".:53\nprivatelink\n", ""},
		"two zones":                      {"a.example:53 {\n privatelink\n}\nb.example:53 {\n privatelink\n}\n", ""},
		"one block of ours":              {"a.example:53 {\n linkproxy\n}\nb.example:53 {\n cache\n}\n", ""},
		"same zone, other port":          {"a.example:53 {\n privatelink\n}\na.example:54 {\n privatelink\n}\n", ""},
		"same zone, other address":       {".:53 {\n bind 127.0.0.1\n privatelink\n}\n.:53 {\n bind 127.0.0.2\n privatelink\n}\n", ""},
		"same zone in views":             {".:53 {\n view a {\n  expr true\n }\n privatelink\n}\n.:53 {\n privatelink\n}\n", ""},
		"same zone, plain and TLS":       {".:53 {\n privatelink\n}\ntls://.:853 {\n tls a b\n privatelink\n}\n", ""},
		"snippet":                        {"(x) {\n errors\n}\n.:53 {\n import x\n privatelink\n}\n", ""},
		"environment":                    {".:{$NO_SUCH_PORT}53 {\n privatelink\n}\n", ""},
		"comment only":                   {"# nothing\n", "Corefile:1 - no server block: "},
		"C11 empty":                      {"", "Corefile:1 - no server block: "},
		"C11 spaces":                     {" \n\t\n", "Corefile:1 - no server block: "},
		"C11 three braces":               {"}}}\n", `Corefile:1 - "}}}" outside of a server block`},
		"C11 braces behind a good block": {".:53 {\n privatelink\n}\n}}}\n", `Corefile:4 - "}}}" outside of a server block`},
		"C11 one brace too many":         {".:53 {\n privatelink\n}\n}\n", `Corefile:4 - "}" outside of a server block`},
		"C11 block cut":                  {".:53 {\n privatelink\n", "Corefile:1 - the brace that opens here is never closed"},
		"C11 cut behind a closing brace": {".:53 {\n privatelink {\n  ttl 5\n }\n", "Corefile:1 - the brace that opens here is never closed"},
		"C11 inner block cut":            {".:53 {\n privatelink {\n  ttl 5\n}\n", "Corefile:1 - the brace that opens here is never closed"},
		"no space before a brace":        {".:53 {\n linkservice redis{\n  target 10.0.0.1:1\n }\n linkproxy\n}\n", `Corefile:2 - linkservice: "redis{": put a space before {`},
		"no space, server block":         {".:53{\n linkproxy\n}\n", `Corefile:1 - ".:53{": put a space before {`},
		"no space, and cut":              {".:53 {\n linkservice redis{\n  target 10.0.0.1:1\n", `Corefile:2 - linkservice: "redis{": put a space before {`},
		"C11 block not closed before the next": {".:53 {\n linkservice a {\n  target 10.0.0.1:1\n linkendpoint e {\n  service a\n }\n linkproxy\n}\n",
			"Corefile:2 - linkservice: the brace that opens here is not closed before linkendpoint in line 4"},
		"C11 words":                {"this is not\na Corefile\n", "Corefile:2 - a: unknown directive"},
		"C11 one word":             {"hello\n", `Corefile:1 - server block "hello" holds no directive`},
		"C11 nothing of ours":      {".:53 {\n forward . 127.0.0.1\n}\n", "Corefile:1 - no server block holds a directive of Postern: one of linkstore, "},
		"C11 bytes":                {"\x00\x01\xff\xfe {\n", "Corefile:1 - the brace that opens here is never closed"},
		"block without directives": {".:53 {\n privatelink\n}\nexample.org:53 {\n}\n", `Corefile:4 - server block "example.org:53" holds no directive`},
		"C01 unknown directive":    {".:53 {\n privatelnk\n}\n", `Corefile:2 - privatelnk: unknown directive; "postern -plugins" lists`},
		"C01 directive of CoreDNS that isn't built in": {".:53 {\n kubernetes\n privatelink\n}\n", "Corefile:2 - kubernetes: unknown directive"},
		"C04 case":                   {"example.org:53 {\n privatelink\n}\nExample.ORG:53 {\n privatelink\n}\n", `Corefile:4 - server block "Example.ORG:53" serves dns://example.org.:53 again, which line 1 serves already`},
		"C04 final dot":              {"example.org {\n privatelink\n}\n\nexample.org. {\n privatelink\n}\n", `Corefile:5 - server block "example.org." serves dns://example.org.:53 again, which line 1 serves already`},
		"C04 in one block":           {"example.org,\nexample.ORG. {\n privatelink\n}\n", `Corefile:2 - server block "example.ORG." serves dns://example.org.:53 again, which line 1 serves already`},
		"C04 prefix and its zone":    {"10.0.0.0/8 {\n privatelink\n}\n10.in-addr.arpa {\n privatelink\n}\n", "Corefile:4 - server block \"10.in-addr.arpa\" serves dns://10.in-addr.arpa.:53 again"},
		"key that is no zone":        {"a..b:53 {\n privatelink\n}\n", `Corefile:1 - server block "a..b:53": `},
		"import of nothing":          {".:53 {\n import no-such-file\n}\n", "Corefile:2 - import: File to import not found: no-such-file"},
		"HTTPS":                      {"https://.:443 {\n tls a b\n privatelink\n}\n", ""},
		"HTTPS in clear":             {"https://.:443 {\n privatelink\n}\n", `Corefile:1 - server block "https://.:443" has no "tls CERT KEY": it would be served in clear`},
		"TLS in clear":               {".:53 {\n privatelink\n}\ntls://.:853 {\n privatelink\n}\n", `Corefile:4 - server block "tls://.:853" has no "tls CERT KEY": it would be served in clear`},
		"TLS, one block in clear":    {"tls://a.example:853 {\n tls a b\n privatelink\n}\ntls://b.example:853 {\n privatelink\n}\n", `Corefile:5 - server block "tls://b.example:853" has no "tls`},
		"QUIC":                       {".:53 {\n privatelink\n}\nquic://. {\n privatelink\n}\n", `Corefile:4 - server block "quic://.": quic is not served`},
		"HTTP/3":                     {".:53 {\n privatelink\n}\nhttps3://. {\n privatelink\n}\n", `Corefile:4 - server block "https3://.": https3 is not served`},
		"gRPC":                       {".:53 {\n privatelink\n}\ngrpc://. {\n privatelink\n}\n", `Corefile:4 - server block "grpc://.": grpc is not served`},
		"proxyproto from everybody":  {".:53 {\n proxyproto\n privatelink\n}\n", "Corefile:2 - proxyproto: without \"allow PREFIX...\""},
		"proxyproto with empty list": {".:53 {\n proxyproto {\n  allow\n }\n privatelink\n}\n", "Corefile:2 - proxyproto: without \"allow PREFIX...\""},
		"proxyproto with a list":     {".:53 {\n proxyproto {\n  allow 10.0.0.0/8\n }\n privatelink\n}\n", ""},
		"C10 metrics for everybody":  {".:53 {\n prometheus :9153\n privatelink\n}\n", `Corefile:2 - prometheus: ":9153" listens on all addresses in clear`},
		"C10 metrics on ::":          {".:53 {\n prometheus [::]:9153\n privatelink\n}\n", "Corefile:2 - prometheus: "},
		"C10 metrics with TLS":       {".:53 {\n prometheus :9153 {\n  tls web.yml\n }\n privatelink\n}\n", ""},
		"C10 metrics on one address": {".:53 {\n prometheus 127.0.0.1:9153\n privatelink\n}\n", ""},
		"C10 metrics by default":     {".:53 {\n prometheus\n privatelink\n}\n", ""},
		"C10 pprof for everybody":    {".:53 {\n privatelink\n pprof 0.0.0.0:6053\n}\n", `Corefile:3 - pprof: "0.0.0.0:6053" listens on all addresses in clear`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseCorefile("Corefile", []byte(c.in), directives)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Errorf("taken, want %q", c.want)
			case err != nil && !strings.HasPrefix(err.Error(), c.want):
				t.Errorf("%q, want %q", err, c.want)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	in := ".:53 {\n linknetwork a 10.0.0.0/8 {\n  endpoints 10.9.0.0/24\n }\n linknetwork linknetwork 11.0.0.0/8\n linkservice s {\n  target 10.0.0.1:1\n }\n}\nb.example {\n privatelink\n}\n"
	c, err := parseCorefile("Corefile", []byte(in), directives)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.summary(), "2 server blocks, 2 networks, 1 service, 0 endpoints"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzCorefile: whatever the bytes are, the Corefile is taken or refused in one bounded line of
// printable characters, and one that is taken has something of ours in it (C11).
func FuzzCorefile(f *testing.F) {
	for _, s := range []string{"", "}}}", ".:53 {\n privatelink\n}\n", ".:53 {\n privatelink {\n}\n", "ȶ {\n linkproxy\n}", "10.0.0.0/33 {\n linkproxy\n}", "a,\nb {\n import x\n}", "(x) {\n}\n", "\xff{$"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if strings.Contains(string(in), "import") {
			return // reads other files
		}
		c, err := parseCorefile("Corefile", in, directives)
		if err == nil {
			if hasOwn(c) != nil || len(c.blocks) == 0 {
				t.Fatalf("%q was taken", in)
			}
			return
		}
		line := err.Error()
		if len(line) > 3*maxText || strings.ContainsAny(line, "\n\r\x00\x1b") || !strings.HasPrefix(line, "Corefile") {
			t.Fatalf("%q: %q", in, line)
		}
	})
}
