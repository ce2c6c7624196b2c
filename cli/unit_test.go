package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/postern-link/postern/control"
)

var update = flag.Bool("update", false, "write the golden files of testdata/golden")

// Stored text as attack: what others wrote can't move a terminal's cursor, turn its writing or end a line.
func TestHostileText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"plain", "contoso-sql ä 日本", "contoso-sql ä 日本"},
		{"escape sequence", "a\x1b[2Jb", `a\x1b[2Jb`},
		{"C1 control", "a\u009b2Jb", `a\u009b2Jb`},
		{"new line", "a\nroot: approved", `a\nroot: approved`},
		{"right to left", "a\u202etxt.exe", `a\u202etxt.exe`},
		{"isolate", "\u2066x\u2069", `\u2066x\u2069`},
		{"zero width", "ad\u200bmin", `ad\u200bmin`},
		{"combining", "a\u0336b", `a\u0336b`},
		{"tag characters", "a\U000e0041", `a\U000e0041`},
		{"not UTF-8", "a\xffb", `a\xffb`},
		{"delete", "a\x7f", `a\x7f`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := line(tt.text); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for _, format := range []string{"table", "json", "yaml"} {
				var b bytes.Buffer
				a := &app{Env: Env{Stdout: &b}, output: format}
				v := map[string]string{"text": tt.text}
				if err := a.print(v, func() table { return table{rows: [][]string{{tt.text}}} }); err != nil {
					t.Fatal(err)
				}
				if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && hidden(r) }); i >= 0 || format == "table" && strings.Count(b.String(), "\n") != 1 {
					t.Errorf("%s prints %q", format, b.String())
				}
				back := map[string]string{}
				var err error
				switch format {
				case "json":
					err = json.Unmarshal(b.Bytes(), &back)
				case "yaml":
					err = yaml.Unmarshal(b.Bytes(), &back)
				default:
					continue
				}
				if want := strings.ToValidUTF8(tt.text, "\ufffd"); err != nil || back["text"] != want {
					t.Errorf("%s reads back as %q, %v, want %q", format, back["text"], err, want)
				}
			}
		})
	}
}

// The manifest of the client and that of the server are one.
func TestManifestFields(t *testing.T) {
	if got, want := shape(reflect.TypeFor[manifest]()), shape(reflect.TypeFor[control.Manifest]()); got != want {
		t.Errorf("the client has\n%s\nthe server\n%s", got, want)
	}
	if got, want := shape(reflect.TypeFor[plan]()), shape(reflect.TypeFor[control.Plan]()); !strings.Contains(want, strings.Split(got, "\n")[0]) {
		t.Errorf("plan: the client has\n%s\nthe server\n%s", got, want)
	}
}

// shape lists the JSON fields of a struct and of those within.
func shape(typ reflect.Type) string {
	for typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return typ.Kind().String()
	}
	var b strings.Builder
	for i := range typ.NumField() {
		f := typ.Field(i)
		if tag := f.Tag.Get("json"); tag != "-" && f.IsExported() {
			b.WriteString(tag + " " + strings.ReplaceAll(shape(f.Type), "\n", "\n  ") + "\n")
		}
	}
	return b.String()
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, ExitDone},
		{"usage", usagef("x"), ExitUsage},
		{"400", &apiError{status: 400, code: "InvalidRequestFormat"}, ExitError},
		{"400 in use", &apiError{status: 400, code: "InUseSubnetCannotBeDeleted"}, ExitConflict},
		{"400 limit", &apiError{status: 400, code: "NetworksLimitReached"}, ExitConflict},
		{"400 full", &apiError{status: 400, code: "SubnetIsFull"}, ExitConflict},
		{"400 no such service", &apiError{status: 400, code: "InvalidPrivateLinkServiceId"}, ExitNotFound},
		{"400 no such network", &apiError{status: 400, code: "InvalidResourceReference"}, ExitNotFound},
		{"403 no egress", &apiError{status: 403, code: "RequestDisallowedByPolicy"}, ExitConflict},
		{"401", &apiError{status: 401}, ExitForbidden},
		{"403", &apiError{status: 403}, ExitForbidden},
		{"404", &apiError{status: 404}, ExitNotFound},
		{"409", &apiError{status: 409}, ExitConflict},
		{"412", &apiError{status: 412}, ExitConflict},
		{"429", &apiError{status: 429}, ExitUnavailable},
		{"500", &apiError{status: 500}, ExitError},
		{"503", &apiError{status: 503}, ExitUnavailable},
		{"no connection", &unreachable{errors.New("refused")}, ExitUnavailable},
		{"items", &failedItems{ExitConflict}, ExitConflict},
		{"not in a list", errNotFound, ExitNotFound},
		{"other", errors.New("x"), ExitError},
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// random is what differs from run to run in what is printed.
var random = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b|\b[0-9]{7,10}\b|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z|\b[0-9a-f]{64}\b`)

// TestGolden compares what people get to read with testdata/golden. What is random there is "#".
func TestGolden(t *testing.T) {
	w := startWorld(t)
	for _, c := range []struct {
		name, who, stdin string
		args             []string
	}{
		{"group-create", "contoso", "", []string{"group", "create", "net"}},
		{"apply", "contoso", goldenWorld, []string{"apply", "-"}},
		{"network-list", "contoso", "", []string{"network", "list"}},
		{"service-list", "contoso", "", []string{"service", "list"}},
		{"service-list-yaml", "contoso", "", []string{"service", "list", "-o", "yaml"}},
		{"endpoint-list", "contoso", "", []string{"endpoint", "list"}},
		{"connection-list", "contoso", "", []string{"connection", "list"}},
		{"explain", "contoso", "", []string{"explain", "10.1.0.9", "db.contoso.example"}},
		{"explain-json", "contoso", "", []string{"explain", "10.1.0.9", "db.contoso.example", "--output", "json"}},
		{"explain-source", "contoso", "", []string{"explain", "10.1.9.9", "db.contoso.example:444"}},
		{"plan-prune", "contoso", "{prune: true}", []string{"plan", "-"}},
		{"audit-list", "contoso", "", []string{"audit", "list"}},
		{"usage", "contoso", "", []string{"usage"}},
		{"flows", "contoso", "", []string{"flows"}},
		{"export", "contoso", "", []string{"export"}},
		{"help", "contoso", "", []string{"connection", "--help"}},
	} {
		code, out, errs := w.run(c.who, c.stdin, c.args...)
		if code != ExitDone {
			t.Fatalf("%s: exit code %d: %s", c.name, code, errs)
		}
		got := spaces.ReplaceAllString(random.ReplaceAllString(out, "#"), "$1  ")
		path := filepath.Join("testdata", "golden", c.name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s prints\n%s\nwant\n%s", c.name, got, want)
		}
	}
}

// spaces are those that align columns: their number follows what is random.
var spaces = regexp.MustCompile(`(\S) {3,}`)

const goldenWorld = `
networks:
  - {name: corp, prefixes: [10.1.0.0/16], subnets: {endpoints: 10.1.250.0/24}}
services:
  - {name: db, names: [db.contoso.example], port: 1433, targets: ["10.20.0.4:1433"], visible: ["*"], proxyProtocol: azure}
endpoints:
  - {name: db-corp, network: corp, subnet: endpoints, service: db, allow: [10.1.0.0/24]}
`

// TestManifestKeys: a file of a mebibyte is refused at once, though the decoder takes time with the square of its keys.
func TestManifestKeys(t *testing.T) {
	var many strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&many, "  subnet%d: 10.0.0.0/24\n", i)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"one key again and again": {strings.Repeat("a:\n", maxConfig/3), "keys"},
		"empty keys":              {strings.Repeat("?\n", maxKeys), "twice"},
		"many keys":               {"networks:\n- name: corp\n  subnets:\n" + strings.ReplaceAll(many.String(), "  sub", "    sub"), "keys"},
		"twice":                   {"networks: []\nnetworks: []\n", `line 2: "networks" is there twice`},
		"a list as key":           {"? [a]\n: b\n", "a key is a word"},
	} {
		if _, err := parseManifests([]byte(tt.text), "sub", "group"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// FuzzManifest: whatever a file holds, it is a manifest within bounds or an error, and what was read is written
// back as the same.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(goldenWorld))
	f.Add([]byte("---\n---\n{}\n...\n"))
	f.Add([]byte("networks: &a [*a]"))
	f.Add([]byte("a: &a [x,x]\nb: &b [*a,*a]\n"))
	f.Add([]byte("services: [{name: 1, port: 99999}]"))
	f.Add([]byte(strings.Repeat("?\n", 1000)))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("prune: yes\nnetworks:\n- name: !!binary aGk=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			return
		}
		all, err := parseManifests(text, "sub", "group")
		if err != nil {
			if len(all) > 0 {
				t.Fatalf("%d manifests beside the error %v", len(all), err)
			}
			return
		}
		for _, m := range all {
			if m.Subscription == "" || m.Group == "" {
				t.Fatalf("a manifest of no group: %+v", m)
			}
			out, err := yaml.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseManifests(out, "", "")
			if err != nil || len(again) != 1 {
				t.Fatalf("written back as\n%s\n%v", out, err)
			}
			if b, _ := yaml.Marshal(again[0]); !bytes.Equal(out, b) { // nothing and an empty list are the same
				t.Fatalf("read %s\nand again %s", out, b)
			}
		}
	})
}

// FuzzVerify: no line makes the verifier do anything but judge, and none that isn't whole is believed.
func FuzzVerify(f *testing.F) {
	f.Add(uint64(1), []byte{1})
	f.Add(uint64(1), append(make([]byte, 33), `{"revision":1}`...))
	f.Fuzz(func(t *testing.T, revision uint64, text []byte) {
		v := &verifier{}
		if err := v.next(Line{revision, text}); err == nil {
			t.Fatalf("line %q was believed", text)
		}
	})
}

// Without TLS where the API speaks it, the answer says so.
func TestPlainToTLS(t *testing.T) {
	w := startWorld(t)
	env := w.env("contoso")
	env["POSTERN_URL"] = strings.Replace(w.url, "https:", "http:", 1)
	var errs strings.Builder
	code := Main([]string{"service", "list"}, Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &errs, Getenv: func(k string) string { return env[k] }})
	if code != ExitUsage || !strings.Contains(errs.String(), "use https") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}
