package coremain

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/coredns/caddy"
)

// Name is the name of the program in its banner.
const Name = "Postern"

// release is the version in development, used where the build doesn't say more.
const release = "1.0.0-dev"

// Set with -ldflags "-X github.com/postern-link/postern/coremain.version=..."; see the Makefile.
var (
	version string // git describe
	commit  string // the commit it was built from
)

// Version returns the version: that of the build, else that of the module, else the release in
// development with the commit where it is known.
func Version() string {
	if version != "" {
		return strings.TrimPrefix(version, "v")
	}
	v, rev := release, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if m := info.Main.Version; m != "" && m != "(devel)" {
			return strings.TrimPrefix(m, "v")
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 7 {
				rev = "+" + s.Value[:7]
			}
		}
	}
	return v + rev
}

// banner is what -version prints: name and version, platform, Go version and commit.
func banner() string {
	s := fmt.Sprintf("%s-%s\n%s/%s, %s", Name, Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if commit != "" {
		s += ", " + commit
	}
	return s + "\n"
}

// name tells Caddy who runs it; CoreDNS says so of itself in an init that package metrics pulls in.
func name() {
	caddy.AppName, caddy.AppVersion = Name, Version()
	caddy.DefaultConfigFile = "Corefile"
	caddy.Quiet = true
}
