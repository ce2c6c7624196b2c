package main

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines bounds a source file outside of tests: one that needs more has two subjects.
const maxLines = 450

func TestFilesAreShort(t *testing.T) {
	for dir, pkg := range packages(t) {
		for _, name := range pkg.GoFiles {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// What is generated is read in its source.
			if n := bytes.Count(b, []byte("\n")); n > maxLines && !strings.HasSuffix(name, ".pb.go") {
				t.Errorf("%s has %d lines, %d are allowed", path, n, maxLines)
			}
		}
	}
}

func TestNoPackageOfLeftovers(t *testing.T) {
	for dir, pkg := range packages(t) {
		switch pkg.Name {
		case "util", "utils", "common", "types", "helpers", "misc":
			t.Errorf("%s: a package called %s says nothing of what is in it", dir, pkg.Name)
		}
	}
}

// TestBinaryIsStatic builds as "make build" does: one file that needs no library and no loader, and
// holds no path of the machine that it was built on.
func TestBinaryIsStatic(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	path := filepath.Join(t.TempDir(), "postern")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary has a %s segment: it isn't static", p.Type)
		}
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		t.Errorf("the binary needs %v", libs)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(wd+"/coremain")) {
		t.Errorf("the binary holds %s", wd)
	}
	out, err := exec.Command(path, "-version").Output()
	if err != nil || !strings.HasPrefix(string(out), "Postern-1.") {
		t.Errorf("-version: %q, %v", out, err)
	}
}
