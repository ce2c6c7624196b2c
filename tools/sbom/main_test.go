package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"runtime/debug"
	"testing"
)

// TestRequired: the document has what the schema of CycloneDX 1.5 requires, in its form, and each reference leads somewhere
// and is given once.
func TestRequired(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "github.com/postern-link/postern", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "a.example/x", Version: "v1.2.3", Sum: "h1:abc="},
			{Path: "b.example/y", Version: "v2.0.0+incompatible", Sum: "h1:def="},
			{Path: "c.example/old", Version: "v1.0.0", Replace: &debug.Module{Path: "c.example/new", Version: "v1.0.1", Sum: "h1:ghi="}},
		},
		Settings: []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "-ldflags", Value: "secret"}},
	}
	text, err := json.Marshal(describe(info, [32]byte{1, 2, 3}, "v1.0.0-dev+abc"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, text, 4)
	for _, want := range []string{`"pkg:golang/a.example/x@v1.2.3"`, `"pkg:golang/b.example/y@v2.0.0%2Bincompatible"`, `"c.example/new"`, `"pkg:golang/stdlib@1.26.8"`, `"h1:ghi="`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for _, not := range []string{"c.example/old", "secret"} {
		if bytes.Contains(text, []byte(not)) {
			t.Errorf("%s in %s", not, text)
		}
	}
}

// TestReproducible: a real binary, this one, twice.
func TestReproducible(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := write(&first, self, ""); err != nil {
		t.Fatal(err)
	}
	if err := write(&second, self, ""); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Error("two bills of one binary differ")
	}
	check(t, first.Bytes(), 1)
	if err := write(&first, "main.go", ""); err == nil {
		t.Error("a text has a bill")
	}
}

// check holds a document to the schema's required fields and patterns (bom-1.5.schema.json).
func check(t *testing.T, text []byte, components int) {
	t.Helper()
	var d bom
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.Format != "CycloneDX" || d.Spec != "1.5" || d.Version < 1 {
		t.Errorf("head %s %s %d", d.Format, d.Spec, d.Version)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(d.Serial) {
		t.Errorf("serial number %s", d.Serial)
	}
	refs := map[string]bool{}
	for _, c := range append(d.Components, d.Metadata.Component) {
		if c.Type != "library" && c.Type != "application" || c.Name == "" || c.Ref == "" || c.PURL == "" || refs[c.Ref] {
			t.Errorf("component %+v", c)
		}
		refs[c.Ref] = true
		for _, h := range c.Hashes {
			if h.Algorithm != "SHA-256" || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(h.Content) {
				t.Errorf("hash %+v", h)
			}
		}
	}
	for _, dep := range d.Dependencies {
		for _, ref := range append(dep.On, dep.Ref) {
			if !refs[ref] {
				t.Errorf("reference to nothing: %s", ref)
			}
		}
	}
	if len(d.Components) < components {
		t.Errorf("%d components, want %d", len(d.Components), components)
	}
}
