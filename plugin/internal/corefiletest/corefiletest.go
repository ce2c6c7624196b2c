// Package corefiletest runs directives on Corefiles that are right or wrong, one file a case with the
// Corefile and what must come of it side by side.
package corefiletest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/postern-link/postern/plugin/linkapi"
	_ "github.com/postern-link/postern/plugin/linkendpoint"
	_ "github.com/postern-link/postern/plugin/linknetwork"
	_ "github.com/postern-link/postern/plugin/linkpolicy"
	_ "github.com/postern-link/postern/plugin/linkproxy"
	_ "github.com/postern-link/postern/plugin/linkservice"
	_ "github.com/postern-link/postern/plugin/linkstore"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/policy/external"
	"github.com/postern-link/postern/proxy"
)

var update = flag.Bool("update", false, "write what came of each case into its file")

// capture is a directive that notes the draft of the Corefile. It is added to each case.
const capture = "corefiletest"

var captured *handover.Draft

// Directives of the cases, in the order of the real build.
var directives = []string{"bind", "linkstore", "linknetwork", "linkservice", "linkendpoint", "linkpolicy", "linkproxy", "linkapi", capture}

var setup = sync.OnceValue(func() error {
	if err := dnsserver.Register(); err != nil {
		return err
	}
	plugin.Register(capture, func(c *caddy.Controller) error {
		var err error
		captured, err = handover.Of(c)
		return err
	})
	return dnsserver.SetDirectives(directives)
})

// Run checks the cases of testdata. A case is a txtar archive: its comment says what it is about, the
// file Corefile is read, further files are imported ones, and the last is "error", the whole message,
// or "config", what the node would be given. Run with -update to write the last file anew.
func Run(t *testing.T) {
	if err := setup(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STATE_DIRECTORY", "/var/lib/postern")
	cases, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { run(t, file) })
	}
}

func run(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := len(archive.Files) - 1
	if last < 1 || archive.Files[0].Name != "Corefile" || strings.TrimSpace(string(archive.Comment)) == "" {
		t.Fatal("a case has a comment, a Corefile and an outcome")
	}
	got := outcome(t, archive.Files[0].Data)
	if want := archive.Files[last]; got.Name == want.Name && string(got.Data) == string(want.Data) {
		return
	}
	if *update {
		archive.Files[last] = got
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("got %s:\n%s\nwant %s:\n%s", got.Name, got.Data, archive.Files[last].Name, archive.Files[last].Data)
}

// outcome sets up the directives of a Corefile as validating it does: nothing is opened.
func outcome(t *testing.T, corefile []byte) txtar.File {
	captured = nil
	t.Cleanup(func() { captured = nil })
	// The server block that captures stands behind the case, so that no line number changes.
	in := caddy.CaddyfileInput{
		Filepath: "Corefile", ServerTypeName: "dns",
		Contents: append(append([]byte{}, corefile...), "\ncapture.invalid:9053 {\n"+capture+"\n}\n"...),
	}
	if err := caddy.ValidateAndExecuteDirectives(in, nil, true); err != nil {
		return txtar.File{Name: "error", Data: []byte(err.Error() + "\n")}
	}
	text, err := describe(captured)
	if err != nil {
		t.Fatal(err)
	}
	return txtar.File{Name: "config", Data: text}
}

// describe writes a configuration without what differs from run to run.
func describe(d *handover.Draft) ([]byte, error) {
	c, err := d.Config()
	if err != nil {
		return nil, err
	}
	for i := range c.Declaration.Services {
		c.Declaration.Services[i].Alias = ""
	}
	var state any = c.State.Bolt
	if c.State.Shared() {
		state = struct {
			handover.Etcd
			Stale string
		}{c.State.Etcd, fmt.Sprintf("%+v", c.Stale)}
	}
	var api any
	if a, ok := c.API.(interface{ Settings() any }); ok {
		api = a.Settings()
	}
	text, err := json.MarshalIndent(struct {
		State       any
		Declaration link.Declare
		Proxy       *proxy.Settings
		API         any   `json:",omitempty"`
		Policies    []any `json:",omitempty"`
	}{state, c.Declaration, c.Proxy, api, policies(c)}, "", "  ")
	return append(text, '\n'), err
}

// policies writes the rules in the words of a Corefile.
func policies(c node.Config) (all []any) {
	for _, p := range c.Policies {
		var says []string
		for _, r := range p.Set.Rules {
			says = append(says, r.String())
		}
		if d := p.Set.Default.String(); d != "" {
			says = append(says, d)
		}
		for _, l := range p.Set.Limits {
			says = append(says, l.String())
		}
		one := struct {
			Name    string
			Says    []string `json:",omitempty"`
			Program any      `json:",omitempty"`
		}{Name: p.Set.Name, Says: says}
		if p.Program != nil {
			one.Program = struct {
				external.Config
				Checksum string
				Timeout  string
			}{*p.Program, fmt.Sprintf("%x", p.Program.Checksum), p.Program.Timeout.String()}
		}
		all = append(all, one)
	}
	return all
}
