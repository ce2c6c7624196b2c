package identity

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// manual is the page that describes the file.
const manual = "../../docs/identities.md"

func fence(t *testing.T, language string) []string {
	t.Helper()
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		all = append(all, m[1])
	}
	if len(all) == 0 {
		t.Fatalf("%s has no %s", manual, language)
	}
	return all
}

// TestManualFile: the example of the manual is a file that is taken.
func TestManualFile(t *testing.T) {
	for _, text := range fence(t, "json") {
		path := put(t, text)
		ca, err := os.ReadFile(newAuthority(t, "corp").file(t))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(filepath.Dir(path), "corp-ca.pem"), string(ca))
		d := start(t, path, Options{})
		if len(d.Tenants()) != 3 || d.ClientCAs() == nil {
			t.Errorf("tenants %+v", d.Tenants())
		}
		if all, err := List(path); err != nil || len(all) != 5 {
			t.Errorf("%+v, %v", all, err)
		}
	}
}

// TestManualToken: the commands of the manual make a token that is taken.
func TestManualToken(t *testing.T) {
	if _, err := exec.LookPath("basenc"); err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip("no basenc (coreutils 8.31 and later)")
	}
	for _, text := range fence(t, "sh") {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", text+"\necho \"$token\"").CombinedOutput()
		f := strings.Fields(string(out))
		if err != nil || len(f) != 3 {
			t.Fatalf("%v\n%s", err, out)
		}
		d := start(t, put(t, who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "`+f[0]+`"}]}`)), Options{})
		if c, err := d.Authenticate(t.Context(), Credential{Bearer: f[2]}); err != nil || c.Name != "ci" {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

// TestManualFields: the manual names every field of the file, and every metric.
func TestManualFields(t *testing.T) {
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, `"`+name+`":`) {
				t.Errorf("%s doesn't name the field %q", manual, name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[document]())
	for _, m := range []string{"sign_ins_total{method, result}", "reloads_total{result}"} {
		if !strings.Contains(text, "`postern_identity_"+m+"`") {
			t.Errorf("%s doesn't name the metric %s", manual, m)
		}
	}
}
