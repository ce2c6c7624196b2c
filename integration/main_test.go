package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// peers are the programs that the scenarios run, with the directories they may hide in where they
// aren't on the PATH.
var peers = map[string]string{
	"ip": "", "dig": "", "delv": "", "dnssec-keygen": "", "dnssec-signzone": "", "dnsperf": "", "iperf3": "", "kdig": "", "drill": "", "named": "/usr/sbin", "unbound": "/usr/sbin", "dnsmasq": "/usr/sbin", "kresd": "/usr/sbin", "pdns_recursor": "/usr/sbin", "nginx": "/usr/sbin",
	"haproxy": "/usr/sbin", "redis-server": "", "redis-cli": "", "curl": "", "openssl": "", "psql": "",
	"initdb": "/usr/lib/postgresql/*/bin", "postgres": "/usr/lib/postgresql/*/bin", "setpriv": "", "prlimit": "",
	"mariadbd": "/usr/sbin", "mariadb": "", "mariadb-install-db": "",
}

// binary is the program under test, built with the race detector: a race in the server is a failed
// scenario.
var binary string

func TestMain(m *testing.M) {
	if os.Getenv(memberVariable) != "" {
		os.Exit(runMember())
	}
	if os.Getenv(coreDNSVariable) != "" {
		os.Exit(runCoreDNS())
	}
	if os.Getenv(clockVariable) != "" {
		os.Exit(runClock())
	}
	flag.Parse()
	if testing.Short() {
		fmt.Println("integration: left out because of -short")
		os.Exit(0)
	}
	// Scenarios wait for most of their time.
	if flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// run checks what the scenarios need, builds the binary, and runs the tests.
func run(m *testing.M) (int, error) {
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("network namespaces need root: run as root after `make deps`, or leave this package out with -short")
	}
	for name, dir := range peers {
		_, err := exec.LookPath(name)
		if found, _ := filepath.Glob(dir); err != nil && len(found) > 0 {
			os.Setenv("PATH", os.Getenv("PATH")+":"+found[len(found)-1])
			_, err = exec.LookPath(name)
		}
		if err != nil {
			return 0, fmt.Errorf("%s is missing: `make deps` installs the clients and peers of the scenarios: %w", name, err)
		}
	}
	if err := removeStale(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "postern-integration-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// Peers that run as a user of their own read certificates from here.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	if pki, err = newPKI(dir); err != nil {
		return 0, fmt.Errorf("make certificates: %w", err)
	}
	// A binary that was built elsewhere, such as that of a release, is tested as it is.
	if binary = os.Getenv("POSTERN_BINARY"); binary == "" {
		binary = filepath.Join(dir, "postern")
		build := exec.Command("go", "build", "-race", "-ldflags", "-s -w", "-o", binary, ".")
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build postern: %w\n%s", err, strings.TrimSpace(string(out)))
		}
	}
	// testscript leaves its directory behind when not all scripts are run; here it goes with ours.
	if err := os.Setenv("GOTMPDIR", dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
