package frontend

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern-link/postern/cli/frontend/peers"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy/hello/rawhello"
)

// recipe returns the configuration in a section of the manual.
func recipe(t *testing.T, section, language string) string {
	t.Helper()
	text := readManual(t)
	_, after, ok := strings.Cut(text, "\n## "+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", manual, section)
	}
	after, _, _ = strings.Cut(after, "\n## ")
	m := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(after, -1)
	if len(m) != 1 {
		t.Fatalf("%s, %s: %d recipes in %s", manual, section, len(m), language)
	}
	return m[0][1]
}

func readManual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", manual))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// here replaces what belongs to the manual's machine by what the test has. All of it must be there.
func here(t *testing.T, conf string, replace ...string) string {
	t.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(conf, replace[i]) {
			t.Fatalf("the recipe doesn't have %s", replace[i])
		}
		conf = strings.ReplaceAll(conf, replace[i], replace[i+1])
	}
	return conf
}

// sites writes what the two customers serve.
func sites(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, s := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, s+".example"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, s+".example", "index.html"), []byte("the data of "+s+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // nginx's workers are another user
			t.Fatal(err)
		}
	}
	return dir
}

// sockets is a directory whose path is short enough for sockets in it.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sites")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRecipes runs the front ends of the manual: each passes all items but those that the manual says fail.
func TestRecipes(t *testing.T) {
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	for _, tt := range []struct {
		section string
		fails   string // the one item that does
		open    bool   // a firewall has to keep strangers out
		start   func(t *testing.T, conf, addr string)
	}{
		{"nginx, a listener for each name", "", false, func(t *testing.T, conf, addr string) {
			conf = here(t, conf, "/srv/", sites(t)+"/", "/etc/nginx/certs/", certs+"/", "/run/postern-sites/", sockets(t)+"/", "10.20.0.101", "127.0.0.1")
			peers.Nginx(t, "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nevents {}\n"+conf, addr)
		}},
		{"nginx, one listener", "second-hello", true, func(t *testing.T, conf, addr string) {
			conf = here(t, conf, "/srv/", sites(t)+"/", "/etc/nginx/certs/", certs+"/", "10.20.0.101", "127.0.0.1")
			peers.Nginx(t, "events {}\n"+conf, addr)
		}},
		{"HAProxy", "", false, func(t *testing.T, conf, addr string) { haproxy(t, conf, addr, certs) }},
	} {
		t.Run(tt.section, func(t *testing.T) {
			t.Parallel()
			language := strings.ToLower(strings.FieldsFunc(tt.section, func(r rune) bool { return r == ',' })[0])
			addr := peers.Address() + ":8443"
			tt.start(t, here(t, recipe(t, tt.section, language), "10.20.0.4:443", addr), addr)
			for _, kind := range []link.ProxyProtocol{link.ProxyV2, link.ProxyAzure} {
				r, by := check(t, Config{Addr: addr, Name: "a.example", Other: "b.example", Roots: roots, Header: kind, LinkID: 7, Timeout: 20 * time.Second})
				for _, i := range r.Items {
					want := Pass
					if i.Name == tt.fails {
						want = Fail
					}
					if i.Verdict != want {
						t.Errorf("%s: %s: %s (%s), want %s", kind, i.Name, i.Verdict, i.Seen, want)
					}
				}
				refusesStrangers(t, addr, kind, tt.open)
				if len(by) != len(items) {
					t.Errorf("%d items of %d", len(by), len(items))
				}
			}
		})
	}
}

// haproxy starts that of the manual, whose directory holds a file for each name and nothing else.
func haproxy(t *testing.T, conf, addr, certs string) {
	t.Helper()
	pairs := t.TempDir()
	for _, name := range []string{"a.example.pem", "b.example.pem"} {
		b, err := os.ReadFile(filepath.Join(certs, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(pairs, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	peers.HAProxy(t, here(t, conf, "/etc/haproxy/certs/", pairs+"/", "10.20.0.101", "127.0.0.1", "10.30.0.1:8080", backend(t, "a"), "10.30.0.2:8080", backend(t, "b")), addr)
}

// TestWithoutTheLine: each line of HAProxy's recipe that compares is needed, or the item fails that it is for.
func TestWithoutTheLine(t *testing.T) {
	certs, roots := peers.Certificates(t, "a.example", "b.example")
	authority, sni := "    http-request return status 421 unless { fc_pp_authority,lower,strcmp(txn.host) eq 0 }\n", "    http-request return status 421 unless { ssl_fc_sni,lower,strcmp(txn.host) eq 0 }\n"
	for _, tt := range []struct {
		name  string
		lines []string
		fails []string
	}{
		{"name that was judged", []string{authority}, []string{"second-hello"}},
		{"both", []string{authority, sni}, []string{"host", "authority", "pipelined", "second-hello"}},
		{"all", []string{authority, sni, " strict-sni"}, []string{"no-name"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf := recipe(t, "HAProxy", "haproxy")
			for _, line := range tt.lines {
				conf = here(t, conf, line, "")
			}
			addr := peers.Address() + ":8443"
			haproxy(t, here(t, conf, "10.20.0.4:443", addr), addr, certs)
			_, by := check(t, Config{Addr: addr, Name: "a.example", Other: "b.example", Roots: roots, Header: link.ProxyV2, Timeout: 20 * time.Second})
			for _, item := range tt.fails {
				if by[item].Verdict != Fail {
					t.Errorf("%+v doesn't fail", by[item])
				}
			}
		})
	}
}

// refusesStrangers connects from an address that isn't Postern's, with a header like Postern's.
func refusesStrangers(t *testing.T, addr string, kind link.ProxyProtocol, open bool) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: 20 * time.Second}
	p := &probe{name: &site{name: "a.example"}}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		if o := ended(outcome{}, err); open || !o.refused { // HAProxy is that fast
			t.Errorf("a stranger: %v", err)
		}
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	o, _ := p.over(conn, rawhello.Config{Hello: rawhello.New("a.example")}, request("/", "a.example"), p.header(conn, kind, 7, p.name))
	if o.refused == open || (o.reply != nil) != open {
		t.Errorf("a stranger's header: %s, let in is %t", o, open)
	}
}

// backend serves a site in clear.
func backend(t *testing.T, site string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the data of "+site+"\n") })}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

// TestExampleProvider: the example in Go, as a program of its own, passes. It has one certificate for all names.
func TestExampleProvider(t *testing.T) {
	certs, _ := peers.Certificates(t, "a.example")
	binary := filepath.Join(t.TempDir(), "provider")
	if out, err := exec.Command("go", "build", "-o", binary, "../../examples/provider").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := peers.Address() + ":8443"
	peers.Start(t, addr, binary, "-listen", addr, "-cert", certs+"/a.example.crt", "-key", certs+"/a.example.key", "-trust", "127.0.0.1/32")
	r, _ := check(t, Config{Addr: addr, Name: "a.example", Other: "b.example", Insecure: true, Expect: "SNI      b.example", Header: link.ProxyAzure, LinkID: 7, Timeout: 20 * time.Second})
	for _, i := range r.Items {
		// It serves who says no name as nobody's: 421 to any Host.
		if i.Verdict != Pass {
			t.Errorf("%+v", i)
		}
	}
}

// TestEnvoyRecipe: no Envoy runs it, so this is only that the recipe is YAML in which each chain has one name, one
// site with that name, and 421 for all others.
func TestEnvoyRecipe(t *testing.T) {
	type chain struct {
		Match struct {
			Names []string `yaml:"server_names"`
		} `yaml:"filter_chain_match"`
		Filters []struct {
			Config struct {
				Routes struct {
					Hosts []struct {
						Domains []string
						Routes  []struct {
							Direct struct{ Status int } `yaml:"direct_response"`
						}
					} `yaml:"virtual_hosts"`
				} `yaml:"route_config"`
			} `yaml:"typed_config"`
		}
	}
	var conf struct {
		Static struct {
			Listeners []struct {
				Default *chain  `yaml:"default_filter_chain"`
				Chains  []chain `yaml:"filter_chains"`
			}
		} `yaml:"static_resources"`
	}
	if err := yaml.Unmarshal([]byte(recipe(t, "Envoy", "yaml")), &conf); err != nil {
		t.Fatal(err)
	}
	for _, l := range conf.Static.Listeners {
		if l.Default != nil || len(l.Chains) == 0 {
			t.Errorf("a default chain, or none at all: %+v", l)
		}
		for _, c := range l.Chains {
			hosts := c.Filters[0].Config.Routes.Hosts
			if len(c.Match.Names) != 1 || len(hosts) != 2 || fmt.Sprint(hosts[0].Domains) != fmt.Sprint(c.Match.Names) || hosts[1].Routes[0].Direct.Status != 421 {
				t.Errorf("chain %+v", c)
			}
		}
	}
	if !strings.Contains(readManual(t), "Not run by our tests: there is no Envoy") {
		t.Error("the manual doesn't say that the recipe isn't run")
	}
}

// TestManual: each item has a section of its name, which the report leads to.
func TestManual(t *testing.T) {
	text := readManual(t)
	for _, i := range items {
		if strings.Count(text, "\n### "+i.name+"\n") != 1 {
			t.Errorf("%s has no section %s", manual, i.name)
		}
	}
}
