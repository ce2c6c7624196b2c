package integration

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/server/v3/embed"
)

// A member of an etcd cluster is this test's own program, told by a variable to be one: the server of the
// module whose client the store uses. Debian's is older than what the store supports.
const (
	memberVariable = "POSTERN_TEST_ETCD" // NAME ADDR CLUSTER DIR
	clientPort     = "2379"
	peerPort       = "2380"
)

// cmdEtcd: etcd HOST NAME=ADDR... starts the members of a cluster, each as a process of its name.
func cmdEtcd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "etcd HOST NAME=ADDR...")
	s, self := of(ts), program(ts)
	var cluster []string
	for _, a := range args[1:] {
		name, addr, ok := strings.Cut(a, "=")
		usage(ts, ok, "etcd HOST NAME=ADDR...")
		cluster = append(cluster, name+"=http://"+addr+":"+peerPort)
	}
	for _, a := range args[1:] {
		name, addr, _ := strings.Cut(a, "=")
		member := strings.Join([]string{name, addr, strings.Join(cluster, ","), ts.MkAbs("etcd-" + name)}, " ")
		p, err := launch(name, ts.MkAbs("."), append(s.env, memberVariable+"="+member), s.host(ts, args[0]).command(self))
		ts.Check(err)
		s.processes = append(s.processes, p)
	}
	for _, a := range args[1:] {
		_, addr, _ := strings.Cut(a, "=")
		cmdListening(ts, false, []string{args[0], addr + ":" + clientPort})
	}
}

// program returns the path of the running test program.
func program(ts *testscript.TestScript) string {
	self, err := os.Executable()
	ts.Check(err)
	return self
}

// runMember is the main function of a member. It returns the exit code.
func runMember() int {
	f := strings.Fields(os.Getenv(memberVariable))
	if len(f) != 4 {
		fmt.Fprintf(os.Stderr, "%s: %q\n", memberVariable, f)
		return 2
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster, c.LogLevel = f[0], filepath.Clean(f[3]), f[2], "error"
	client, peer := url.URL{Scheme: "http", Host: f[1] + ":" + clientPort}, url.URL{Scheme: "http", Host: f[1] + ":" + peerPort}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	e, err := embed.StartEtcd(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer e.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	select {
	case <-stop:
		return 0
	case err := <-e.Err():
		fmt.Fprintln(os.Stderr, err)
		return 1
	case <-e.Server.StopNotify():
		return 1
	}
}
