package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	caddyserver "github.com/coredns/caddy"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/coremain"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// readmes returns the READMEs of our directives, by directive.
func readmes(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("plugin/*/README.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no README: %v", err)
	}
	texts := map[string]string{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(filepath.Dir(path))] = string(b)
	}
	return texts
}

// TestDirectivesHaveREADMEs: each directive of ours has one, with the sections of CoreDNS's manual
// pages, in their order.
func TestDirectivesHaveREADMEs(t *testing.T) {
	texts := readmes(t)
	for _, d := range coremain.Directives() {
		if !strings.HasPrefix(d, "link") && d != "privatelink" {
			continue
		}
		text, ok := texts[d]
		if !ok {
			t.Errorf("plugin/%s has no README.md", d)
			continue
		}
		if !strings.HasPrefix(text, "# "+d+"\n") {
			t.Errorf("plugin/%s/README.md doesn't begin with its name", d)
		}
		var sections []string
		for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(text, -1) {
			sections = append(sections, m[1])
		}
		at := -1
		for _, want := range []string{"Name", "Description", "Syntax", "Examples"} {
			i := slices.Index(sections, want)
			if i < 0 || i < at {
				t.Errorf("plugin/%s/README.md: section %s is missing or out of order: %v", d, want, sections)
			}
			at = i
		}
	}
}

// examples returns the Corefiles of the documentation, by where they stand.
func examples(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for d, text := range readmes(t) {
		texts["plugin/"+d+"/README.md"] = text
	}
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	texts["README.md"] = string(b)
	found := map[string]string{}
	fence := regexp.MustCompile("(?ms)^(~~~|```) ?corefile\n(.*?)^(~~~|```)$")
	for path, text := range texts {
		all := fence.FindAllStringSubmatch(text, -1)
		if len(all) == 0 {
			t.Errorf("%s has no example: a fence of language corefile", path)
		}
		for i, m := range all {
			found[fmt.Sprintf("%s/%d", path, i+1)] = m[2]
		}
	}
	if b, err = os.ReadFile("Corefile.example"); err != nil {
		t.Fatal(err)
	}
	found["Corefile.example"] = string(b)
	return found
}

// onLoopback rewrites an example so that it runs beside anything else: free ports, loopback
// addresses, a state of its own.
func onLoopback(t *testing.T, text string) string {
	dir := t.TempDir()
	text = onEtcd(t, text)
	for _, r := range [][2]string{
		{`(?m)^(\S*):(53|1053|5300) \{$`, "$1:0 {\n"},
		{`(?m)^(\s*linkstore bolt) \S+`, "$1 " + filepath.Join(dir, "state.db")},
		{`\b10\.(\d+\.\d+\.\d+)\b`, "127.$1"},
		{`\b127\.20\.`, fmt.Sprintf("127.%d.", 100+os.Getpid()%100)},
		{`(prometheus|ready|health) (\S*):\d+`, "$1 127.0.0.1:0"},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	text = onFreePort(t, text, dir)
	if !strings.Contains(text, "bind ") {
		text = strings.Replace(text, ":0 {\n", ":0 {\n bind 127.0.0.1\n", 1)
	}
	t.Setenv("STATE_DIRECTORY", dir)
	return text
}

// onFreePort gives a control API a port that nobody has, and an identities file.
func onFreePort(t *testing.T, text, dir string) string {
	listens := regexp.MustCompile(`(?m)^(\s*linkapi) \S+:8443`)
	if !listens.MatchString(text) {
		return text
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(dir, "identities.json")
	if err := identity.Init(file); err != nil {
		t.Fatal(err)
	}
	text = listens.ReplaceAllString(text, "$1 "+l.Addr().String())
	return regexp.MustCompile(`(?m)^(\s*identities) \S+`).ReplaceAllString(text, "$1 "+file)
}

// serve starts a Corefile in this process and ends it after the test.
func serve(t *testing.T, name, text string) {
	t.Helper()
	if err := coremain.Setup(); err != nil {
		t.Fatal(err)
	}
	inst, err := caddyserver.Start(caddyserver.CaddyfileInput{Contents: []byte(text), Filepath: name, ServerTypeName: "dns"})
	if err != nil {
		inst.ShutdownCallbacks()
		t.Fatalf("%v\n%s", err, text)
	}
	t.Cleanup(func() {
		for _, err := range inst.ShutdownCallbacks() {
			t.Error(err)
		}
		if err := inst.Stop(); err != nil {
			t.Error(err)
		}
	})
	if !slices.ContainsFunc(inst.Servers(), func(s caddyserver.ServerListener) bool { return s.Addr() != nil }) {
		t.Errorf("no server:\n%s", text)
	}
}

// TestExamplesStart: what the documentation shows runs.
func TestExamplesStart(t *testing.T) {
	for name, text := range examples(t) {
		t.Run(name, func(t *testing.T) { serve(t, name, onLoopback(t, text)) })
	}
}

// TestMetrics: names and types are as Prometheus wants them, and each name stands with its labels in
// the README of a directive.
func TestMetrics(t *testing.T) {
	b, err := os.ReadFile("Corefile.example")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, "Corefile.example", onLoopback(t, string(b)))
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
		n := f.GetName()
		return !strings.HasPrefix(n, "postern_") && !strings.HasPrefix(n, "coredns_privatelink_") && !strings.HasPrefix(n, "coredns_link")
	})
	if len(families) < 10 {
		t.Fatalf("only %d metrics of ours", len(families))
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	var manual strings.Builder
	for _, text := range readmes(t) {
		manual.WriteString(text)
	}
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want := f.GetName()
		if len(labels) > 0 {
			want += "{"
		}
		m := regexp.MustCompile("`" + want + "([^}`]*)").FindStringSubmatch(manual.String())
		if m == nil {
			t.Errorf("no README says `%s`, labels %v", f.GetName(), labels)
			continue
		}
		for _, l := range labels {
			if !slices.Contains(regexp.MustCompile(`[ ,]+`).Split(m[1], -1), l) {
				t.Errorf("the README of `%s` doesn't name the label %s: %s", f.GetName(), l, m[1])
			}
		}
	}
}
