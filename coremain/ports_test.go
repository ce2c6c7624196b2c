package coremain

import (
	"strings"
	"testing"
)

// A port that a service has and something else listens on: the start would end with an address in use.
func TestOwnPorts(t *testing.T) {
	const objects = " linknetwork corp 10.1.0.0/16 {\n  endpoints 10.200.0.0/24\n }\n linknetwork here 127.0.0.0/8 {\n  endpoints 127.0.10.0/24\n }\n" +
		" linknetwork six fd00:1::/64 {\n  endpoints fd00:2::/64\n }\n linkservice Dns {\n  target 10.20.0.4:53 10.20.0.5:53\n }\n linkservice web {\n  target 10.20.0.4:443\n  port 8443\n }\n" // 16 lines, the port of dns in the 11th, that of web in the 15th
	endpoint := func(service, where string) string {
		return " linkendpoint e {\n  service " + service + "\n  " + where + "\n }\n"
	}
	udp := func(port string) string {
		return " linkservice gram {\n  protocol udp\n  target 10.20.0.4:" + port + "\n }\n"
	}
	const routed = "linkservice: server block \".:53\" at Corefile:1 listens on port 53, and routed endpoints are listened for on all addresses; " +
		"give the service another port, or say \"listen address\" in linkproxy"
	const alone = " linkproxy {\n  listen address\n }\n"
	for name, c := range map[string]struct{ in, want string }{
		"all addresses":                       {".:53 {\n" + objects + endpoint("dns", "network corp") + " linkproxy\n}\n", "Corefile:12 - " + routed + " and give that an address of its own"},
		"one address":                         {".:53 {\n bind 10.1.0.1\n" + objects + endpoint("dns", "network CORP") + " linkproxy\n}\n", "Corefile:13 - " + routed},
		"address that is written":             {".:53 {\n" + objects + endpoint("dns", "address 10.200.0.5") + " linkproxy\n}\n", "Corefile:12 - linkservice: server block"},
		"IPv6 beside an IPv4 address":         {".:53 {\n bind 10.1.0.1\n" + objects + endpoint("dns", "network six") + " linkproxy\n}\n", ""},
		"IPv6 beside all addresses":           {".:53 {\n" + objects + endpoint("dns", "network six") + " linkproxy\n}\n", "Corefile:12 - "},
		"interface":                           {".:53 {\n bind eth0\n" + objects + endpoint("dns", "network corp") + " linkproxy\n}\n", "Corefile:13 - "},
		"loopback endpoint, all addresses":    {".:53 {\n" + objects + endpoint("dns", "network here") + " linkproxy\n}\n", `Corefile:12 - linkservice: server block ".:53" at Corefile:1 listens on port 53 on all addresses; give`},
		"loopback endpoint, one address":      {".:53 {\n bind 127.0.0.1\n" + objects + endpoint("dns", "network here") + " linkproxy\n}\n", ""},
		"listen address, all addresses":       {".:53 {\n" + objects + endpoint("dns", "network corp") + alone + "}\n", "Corefile:12 - linkservice: server block \".:53\" at Corefile:1 listens on port 53 on all addresses"},
		"listen address, one address":         {".:53 {\n bind 10.1.0.1\n" + objects + endpoint("dns", "network corp") + alone + "}\n", ""},
		"another port":                        {".:53 {\n" + objects + endpoint("web", "network corp") + " linkproxy\n}\n", ""},
		"no endpoint":                         {".:53 {\n" + objects + " linkproxy\n}\n", ""},
		"no data plane":                       {".:53 {\n" + objects + endpoint("dns", "network corp") + "}\n", ""},
		"default port, another block":         {".:54 {\n" + objects + endpoint("dns", "network corp") + " linkproxy\n}\nexample.org {\n errors\n}\n", `Corefile:12 - linkservice: server block "example.org" at Corefile:24 listens on port 53`},
		"DNS over TLS, port of the service":   {"tls://.:8443 {\n tls a b\n" + objects + endpoint("web", "network corp") + " linkproxy\n}\n", `Corefile:17 - linkservice: server block "tls://.:8443" at Corefile:1`},
		"ready":                               {".:53 {\n ready :8443\n" + objects + endpoint("web", "network corp") + " linkproxy\n}\n", "Corefile:17 - linkservice: ready at Corefile:2 listens on port 8443"},
		"prometheus on loopback":              {".:53 {\n prometheus 127.0.0.1:8443\n" + objects + endpoint("web", "network corp") + " linkproxy\n}\n", "Corefile:17 - linkservice: prometheus at Corefile:2"},
		"prometheus on loopback, per address": {".:53 {\n prometheus 127.0.0.1:8443\n" + objects + endpoint("web", "network corp") + alone + "}\n", ""},
		"UDP, DNS":                            {".:53 {\n" + objects + udp("53") + endpoint("gram", "network corp") + " linkproxy\n}\n", `Corefile:20 - linkservice: server block ".:53" at Corefile:1`},
		"UDP, DNS over TLS":                   {"tls://.:8853 {\n tls a b\n" + objects + udp("8853") + endpoint("gram", "network corp") + " linkproxy\n}\n", ""},
		"UDP, prometheus":                     {".:53 {\n prometheus 127.0.0.1:9153\n" + objects + udp("9153") + endpoint("gram", "network corp") + " linkproxy\n}\n", ""},
		"default of health":                   {".:53 {\n health\n" + strings.Replace(objects, "8443", "8080", 1) + endpoint("web", "network corp") + " linkproxy\n}\n", "Corefile:17 - linkservice: health at Corefile:2 listens on port 8080"},
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

// Endpoints that nothing answers for or listens on are allowed, and said.
func TestWarnings(t *testing.T) {
	const network = " linknetwork corp 10.1.0.0/16\n"
	const endpoint = " linkendpoint e {\n  service s\n }\n"
	const service, named = " linkservice s {\n  target 10.0.0.1:1\n }\n", " linkservice s {\n  names a.example\n }\n"
	const approving = " linkservice s {\n  approve corp\n }\n"
	program := func(ask string) string {
		return " privatelink\n linkproxy\n linkpolicy tickets {\n  program /p\n" + ask + " }\n"
	}
	const unasked = "1 declared endpoint of services with approve, about which the program of policy tickets isn't asked: it reviews requests through the API"
	typo := func(kind, id string) string {
		return "warning: a rule names the " + kind + " " + quote(id) + ", which isn't declared: it holds for nothing by it"
	}
	const noProxy = "1 endpoint and no linkproxy: nothing listens on their addresses"
	const noAnswer = "1 endpoint and no privatelink: DNS doesn't answer with their addresses"
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"both there":                   {endpoint + named + " privatelink\n linkproxy\n", nil},
		"no endpoint":                  {named, nil},
		"no privatelink":               {endpoint + named + " linkproxy\n", []string{"Corefile:3: warning: " + noAnswer}},
		"no privatelink, and no names": {endpoint + service + " linkproxy\n", nil},
		"G04 reviews, of a list":       {endpoint + approving + program("  ask flows reviews\n"), []string{"Corefile:3: warning: " + unasked}},
		"reviews, and no list":         {endpoint + service + program("  ask reviews\n"), nil},
		"a list, and flows alone":      {endpoint + approving + program(""), nil},
		"misspelt in a rule": {" linkpolicy p {\n  rule allow deny service slq network corp\n  rule b allow endpoint endpoint service x\n  default allow\n }\n",
			[]string{"Corefile:4: " + typo("service", "slq"), "Corefile:5: " + typo("endpoint", "endpoint"), "Corefile:5: " + typo("service", "x")}},
		"spelt well in a rule": {named + " linkpolicy p {\n  rule a deny service s network corp\n  default allow\n }\n", nil},
		"there may be others":  {" linkapi 127.0.0.1:8443\n linkpolicy p {\n  rule a deny service slq\n }\n", nil},
		"neither":              {endpoint + named, []string{"Corefile:3: warning: " + noProxy, "Corefile:3: warning: " + noAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := parseCorefile("Corefile", []byte(".:53 {\n"+network+c.in+"}\n"), directives)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range warnings(parsed) {
				got = append(got, w.Lint())
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
