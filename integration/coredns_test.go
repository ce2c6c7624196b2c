package integration

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
)

// coreDNSVariable makes the test's own program a CoreDNS: Debian has no package of it. Its value is the Corefile.
const coreDNSVariable = "POSTERN_INTEGRATION_COREDNS"

// runCoreDNS serves a Corefile with stock plugins until SIGTERM, and returns the exit code.
func runCoreDNS() int {
	path := os.Getenv(coreDNSVariable)
	text, err := os.ReadFile(path)
	if err == nil {
		err = dnsserver.Register()
	}
	if err == nil {
		err = dnsserver.SetDirectives([]string{"errors", "cache", "forward"})
	}
	var instance *caddy.Instance
	if err == nil {
		instance, err = caddy.Start(caddy.CaddyfileInput{Filepath: path, Contents: text, ServerTypeName: "dns"})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "CoreDNS:", err)
		return 1
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
	instance.ShutdownCallbacks()
	if err := instance.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "CoreDNS:", err)
	}
	return 0
}
