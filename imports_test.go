package main

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postern-link/postern/"

// layer is one line of the dependency table: what the packages below a directory may import beyond
// the standard library, and the reason why it is no more. The longest directory counts.
type layer struct {
	dir    string
	may    []string // prefixes; those of this module begin with "./"
	reason string
}

var layers = []layer{
	{".", []string{"./coremain"}, "main runs coremain and nothing else"},
	{"coremain", []string{"./", "github.com/", unix}, "the build knows everything, and asks the system whose a file is"},
	{"plugin", []string{"./link", "./plugin/internal", "./proxy", caddy, coredns, dnslib, metrics},
		"directives fill a draft; the node behind it is for plugin/internal/handover alone"},
	{"plugin/linkapi", []string{"./control", "./internal/wholefile", "./link", "./node", "./plugin/internal", caddy, coredns, metrics},
		"serves the operations of one node: it has to know the node, the operations and their wire format"},
	{"plugin/linkexport", []string{"./export", "./plugin/internal", caddy, coredns}, "says who is sent what: it has to know what a receiver is made of"},
	{"plugin/linkpolicy", []string{"./link", "./plugin/internal", "./policy", caddy, coredns}, "makes rules of words: it has to know their types, and the language of conditions"},
	{"plugin/linkstore", []string{"./link", "./node", "./plugin/internal", caddy, coredns}, "says where the state is, also to who hands it from process to process"},
	{"plugin/privatelink", []string{"./link", "./plugin/internal", "./plugin/privatelink/fastpath", caddy, coredns, dnslib, metrics},
		"DNS answers from a function that returns the snapshot; it imports no store and no proxy"},
	{"plugin/privatelink/fastpath", []string{"./internal/mmsg", dnslib, metrics, unix}, "sockets and a table: it knows DNS messages, and neither plugins nor the state"},
	{"plugin/linkexit", []string{"./link", "./plugin/internal", "./plugin/privatelink", caddy, coredns, dnslib, metrics, "golang.org/x/net/publicsuffix"},
		"judges what privatelink passes on, which tells it who asks"},
	{"plugin/internal/block", []string{"./link", caddy}, "parsing a block needs the types of what it reads, and Caddy's words"},
	{"plugin/internal/corefiletest", []string{"./link", "./node", "./plugin", "./policy/external", "./proxy", caddy, coredns, "github.com/rogpeppe/go-internal"}, "runs directives in tests"},
	{"plugin/internal/handover", []string{"./export", "./link", "./node", "./plugin/internal/block", "./policy", "./proxy", "./store", caddy, coredns, metrics},
		"carries the node through Caddy's callbacks"},
	{"node", []string{"./export", "./link", "./node/succession", "./policy", "./policy/external", "./proxy", "./store", metrics}, "several nodes run in one test process, so a node knows no Caddy and no CoreDNS"},
	{"export", []string{"./internal/collectors", "./internal/wholefile", "./link", "./store", "go.opentelemetry.io/proto/otlp", "google.golang.org/protobuf", metrics},
		"sends records that it is given and an audit record that it reads: of who makes them it knows nothing"},
	{"node/confine", []string{"github.com/landlock-lsm/go-landlock", unix}, "takes privileges from a process, whatever the process is"},
	{"node/succession", []string{"./internal/sockname", "./link", "./node/confine", unix}, "hands descriptors from process to process, and carries what they tell each other of flows and sandbox"},
	{"proxy", []string{"./internal/sockname", "./link", "./policy", "./proxy", "github.com/pires/go-proxyproto", metrics, unix}, "the data plane gets a snapshot and knows neither store nor Caddy"},
	{"proxy/engine", []string{unix}, "moves bytes: it knows connections and nothing of flows"},
	{"proxy/datagram", []string{"./internal/mmsg", "./internal/sockname", unix}, "moves datagrams: it knows sockets and who is asked, and nothing of policy"},
	{"proxy/budget", nil, "reads what the kernel says of memory: the standard library alone"},
	{"proxy/header", []string{"./link"}, "a wire format needs nobody's help"},
	{"proxy/targets", []string{"./link"}, "chooses among targets: no socket, no goroutine, no clock"},
	{"proxy/resolve", []string{"./link", dnslib}, "asks DNS for addresses: it knows names, and nothing of services and rules"},
	{"control/armapi", []string{"./control", "./link", "./store", metrics}, "the wire format of the operations: handlers decide nothing"},
	{"control/internal/controltest", []string{"./control", "./link", "./store"}, "starts a real control plane in tests"},
	{"control/identity", []string{"./control", "./internal/wholefile", "./link", "github.com/coreos/go-oidc/v3", "github.com/go-jose/go-jose/v4", metrics, unix},
		"says who a caller is; what the caller may do is decided in control"},
	{"cli", []string{"./cli/frontend", "./control", "./control/identity", "./link", cobra, pflag, yaml},
		"a client of the API; of the server it knows the identities file, and nothing of state and data plane"},
	{"cli/frontend", []string{"./link", "./policy/hello/rawhello", "./proxy/header", "golang.org/x/net/http2"}, "tries a front end from outside: it knows names and wire formats, and no API"},
	{"cli/frontend/peers", nil, "starts nginx and HAProxy in tests"},
	{"policy", []string{"./link", "./policy"}, "a verdict is a function of snapshot and request: no I/O"},
	{"policy/external", []string{"./internal/collectors", "./link", "./policy", "./policy/policyplugin", "github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf", metrics, unix},
		"the host of policy programs: processes, and therefore I/O"},
	{"policy/policyplugin", []string{"./policy/policyplugin", "github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc", "google.golang.org/protobuf", unix},
		"what the author of a policy program imports: nothing of the node"},
	{"policy/cel", []string{"./policy", "cel.dev/cel-go"}, "compiles the conditions of rules; policy itself knows no language"},
	{"policy/hello", []string{"./link", "./policy"}, "reads the first bytes of a connection that it is given"},
	{"policy/preface", []string{"./policy"}, "reads what comes before a hello, from readers that it is given"},
	{"policy/hello/rawhello", nil, "a client for tests and probes writes every byte itself: the standard library alone"},
	{"control", []string{"./link", "./policy", "./store", metrics}, "operations know no HTTP, no proxy and no Caddy"},
	{"store", []string{"./link"}, "the contract of a store knows no implementation"},
	{"store/bolt", []string{"./internal/wholefile", "./link", "./store", "go.etcd.io/bbolt", metrics, unix}, "one implementation"},
	{"store/etcd", []string{"./link", "./store", "go.etcd.io/etcd/api/v3", "go.etcd.io/etcd/client/v3", "google.golang.org/grpc", "go.uber.org/zap", metrics}, "the other implementation; etcd's server is for its tests alone"},
	{"store/meter", []string{"./internal/collectors", "./store", metrics}, "counts commits; of what a store is it knows the contract"},
	{"store/storetest", []string{"./link", "./store", "github.com/anishathalye/porcupine"}, "the suite that every store passes"},
	{"internal/collectors", []string{metrics}, "registers metrics"},
	{"internal/dnstest", []string{dnslib}, "serves DNS to tests: it knows messages, and nothing of what is tested"},
	{"internal/freeport", nil, "gives ports to tests"},
	{"internal/mmsg", []string{unix}, "system calls for datagrams: what they carry is nothing to it"},
	{"internal/sockname", []string{unix}, "reads addresses of sockets"},
	{"internal/tcptest", nil, "serves TCP to tests: it knows connections, and nothing of what is tested"},
	{"internal/wholefile", nil, "writes files, whatever is in them"},
	{"internal/etcdtest", []string{"./internal/freeport", "go.etcd.io/etcd/server/v3", "go.uber.org/zap"}, "runs etcd in tests"},
	{"link", []string{"github.com/gaissmai/bart", "github.com/tidwall/btree"}, "the domain does no I/O: the standard library, a persistent map and a prefix table"},
	{"bench", []string{"./internal/mmsg", "./link", "./policy/policyplugin", "./store", dnslib, unix, coredns, "go.etcd.io/etcd"}, "measures binaries from outside; a large state is written as a backup"},
	{"tools", nil, "looks at what was built, not into it"},
	{"integration", nil, "tests the binary from outside"},
	{"soak", nil, "tests the binary from outside"},
	{"examples/policy-ticket", []string{"./policy/policyplugin"}, "what the author of a policy program imports"},
	{"examples", []string{"github.com/pires/go-proxyproto"}, "what a provider writes, who has none of our code"},
}

const (
	caddy   = "github.com/coredns/caddy"
	cobra   = "github.com/spf13/cobra"
	coredns = "github.com/coredns/coredns"
	dnslib  = "github.com/miekg/dns"
	metrics = "github.com/prometheus/client_golang"
	pflag   = "github.com/spf13/pflag"
	unix    = "golang.org/x/sys/unix"
	yaml    = "go.yaml.in/yaml/v3"
)

// noIO are packages of the standard library that the pure ones do without, in link and policy.
var noIO = []string{"os", "net", "net/http", "log", "log/slog", "syscall", "database/sql"}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for dir, pkg := range packages(t) {
		l := layerOf(dir)
		if l == nil {
			t.Errorf("%s is in no line of the dependency table", dir)
			continue
		}
		seen[l.dir] = true
		for _, imp := range pkg.Imports {
			own, ours := strings.CutPrefix(imp, module)
			if ours {
				imp = "./" + own
			}
			std := !ours && !strings.Contains(strings.Split(imp, "/")[0], ".")
			pure := l.dir == "link" || l.dir == "policy"
			switch {
			case std && pure && slices.Contains(noIO, imp):
				t.Errorf("%s imports %s: %s", dir, imp, l.reason)
			case !std && !slices.ContainsFunc(l.may, func(p string) bool { return below(imp, p) }):
				t.Errorf("%s imports %s: %s", dir, imp, l.reason)
			}
		}
		if imports := pkg.Imports; dir != "coremain" && !strings.HasPrefix(dir, "bench") && slices.Contains(imports, coredns+"/coremain") {
			t.Errorf("%s imports CoreDNS's coremain: docs/decisions/0001-own-runner.md", dir)
		}
	}
	for _, l := range layers {
		if !seen[l.dir] {
			t.Errorf("line %s of the dependency table speaks of no package", l.dir)
		}
	}
}

// below reports whether an import path is a prefix or below it.
func below(imp, prefix string) bool {
	return imp == prefix || strings.HasPrefix(imp, strings.TrimSuffix(prefix, "/")+"/")
}

// layerOf returns the line of the longest directory that dir is in.
func layerOf(dir string) *layer {
	var best *layer
	for i, l := range layers {
		if (dir == l.dir || l.dir != "." && strings.HasPrefix(dir, l.dir+"/")) && (best == nil || len(l.dir) > len(best.dir)) {
			best = &layers[i]
		}
	}
	return best
}

// packages returns the packages of the module by directory, without their tests.
func packages(t *testing.T) map[string]*build.Package {
	t.Helper()
	all := map[string]*build.Package{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != "." {
			return filepath.SkipDir // a module of its own: what it needs isn't ours
		}
		pkg, err := build.ImportDir(path, 0)
		if _, none := err.(*build.NoGoError); none {
			return nil
		} else if err != nil {
			return err
		}
		all[filepath.ToSlash(path)] = pkg
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPackagesExplainThemselves: each package has a package comment that begins as Go wants it.
func TestPackagesExplainThemselves(t *testing.T) {
	for dir, pkg := range packages(t) {
		if len(pkg.GoFiles) == 0 {
			continue // tests only
		}
		if len(pkg.Doc) < 40 {
			t.Errorf("%s has no package comment of use: %q", dir, pkg.Doc)
		}
		if pkg.Name != "main" && !strings.HasPrefix(pkg.Doc, "Package "+pkg.Name+" ") {
			t.Errorf("the comment of package %s begins %q", pkg.Name, pkg.Doc)
		}
	}
}
