package coremain

import (
	"strings"
	"testing"
)

// C08, C10: nothing else listens where endpoints are or may come to be; both lines are named.
func TestOwnAddresses(t *testing.T) {
	const head = ".:53 {\n bind 127.0.0.1\n linknetwork corp 127.0.0.0/8 {\n  endpoints 127.0.10.0/24 fd00:200::/64\n }\n linknetwork bare 10.1.0.0/16 {\n" +
		"  by_listener\n  endpoints 10.7.0.5/32 10.7.1.0/24\n }\n linknetwork none 10.2.0.0/16\n\n" // 11 lines
	for name, c := range map[string]struct{ in, want string }{
		"elsewhere":                {head + " prometheus 127.0.11.5:9153\n pprof\n health 10.7.0.6:8080\n ready [fd00:201::1]:8181\n}\n", ""},
		"all addresses":            {head + " health\n ready :8181\n}\n", ""},
		"another directive's word": {head + " errors {\n  prometheus\n  127.0.10.5\n }\n}\n", ""},
		"C10 prometheus":           {head + " prometheus 127.0.10.5:9153\n}\n", `Corefile:12 - prometheus: "127.0.10.5:9153" is in the pool 127.0.10.0/24 at Corefile:4; endpoints need addresses of their own`},
		"C10 prometheus with TLS":  {head + " prometheus 127.0.10.5:9153 {\n  tls web.yml\n }\n}\n", "Corefile:12 - prometheus: "},
		"C10 pprof":                {head + " pprof 127.0.10.5:6053 {\n  block 5\n }\n}\n", `Corefile:12 - pprof: "127.0.10.5:6053" is in the pool`},
		"C10 health":               {head + " health [fd00:200::1]:8080 {\n  lameduck 5s\n }\n}\n", `Corefile:12 - health: "[fd00:200::1]:8080" is in the pool fd00:200::/64 at Corefile:4`},
		"C10 ready":                {head + " ready 10.7.0.5:8181\n}\n", `Corefile:12 - ready: "10.7.0.5:8181" is in the pool 10.7.0.5/32 at Corefile:8`},
		"C10 IPv4 in IPv6":         {head + " ready [::ffff:127.0.10.5]:8181\n}\n", "Corefile:12 - ready: "},
		"C10 another block": {head + "}\nexample.org:53 {\n errors\n prometheus 127.0.10.5:9153\n}\n",
			`Corefile:15 - prometheus: "127.0.10.5:9153" is in the pool 127.0.10.0/24 at Corefile:4`},
		"C10 block before the pool": {"example.org:53 {\n ready 127.0.10.5:8181\n}\n" + head + "}\n", `Corefile:2 - ready: "127.0.10.5:8181" is in the pool 127.0.10.0/24 at Corefile:7`},
		"C10 by default": {".:53 {\n linknetwork corp 10.1.0.0/16 {\n  endpoints 127.0.0.0/24\n }\n prometheus\n}\n",
			`Corefile:5 - prometheus: "localhost" is in the pool 127.0.0.0/24 at Corefile:3`},
		"C10 second of a block":          {head + " prometheus 127.0.0.1:9153\n prometheus 127.0.10.5:9153\n}\n", "Corefile:13 - prometheus: "},
		"C10 second for everybody":       {head + " prometheus 127.0.0.1:9153\n prometheus :9154\n}\n", `Corefile:13 - prometheus: ":9154" listens on all addresses in clear`},
		"C08 block without any of ours":  {head + "}\nexample.org:53 {\n bind 127.0.0.1 127.0.10.53\n errors\n}\n", `Corefile:14 - bind: "127.0.10.53" is in the pool 127.0.10.0/24 at Corefile:4`},
		"C08 second bind":                {head + "}\nexample.org:53 {\n bind 127.0.0.1 {\n  except 127.0.10.9\n }\n bind 127.0.10.53\n errors\n}\n", "Corefile:17 - bind: "},
		"C08 interface, except and pool": {head + "}\nexample.org:53 {\n bind lo {\n  except 127.0.10.9\n }\n errors\n}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseCorefile("Corefile", []byte(c.in), directives)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
