// Command sbom writes the bill of materials of a Go binary: every module that it was built from, as the binary itself
// tells, in CycloneDX 1.5 (JSON). The same binary gives the same bytes: there is no time in it and no random number.
//
//	go run ./tools/sbom -version 1.0.0 postern > postern.cdx.json
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

// bom is a CycloneDX document as far as a list of modules needs it.
type bom struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Serial       string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn,omitempty"`
}

func main() {
	version := flag.String("version", "", "version of the binary, where it doesn't tell")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: sbom [-version V] BINARY")
		os.Exit(2)
	}
	if err := write(os.Stdout, flag.Arg(0), *version); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// write writes the bill of a binary. version is used where it isn't "".
func write(w io.Writer, path, version string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	digest, err := sum(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(describe(info, digest, version))
}

func sum(path string) (digest [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return digest, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return digest, err
	}
	h.Sum(digest[:0])
	return digest, nil
}

// describe makes the document of what a binary tells.
func describe(info *debug.BuildInfo, digest [sha256.Size]byte, version string) bom {
	main := module(&info.Main)
	main.Type = "application"
	if version = strings.TrimPrefix(version, "v"); version != "" {
		main.Version, main.PURL = version, "pkg:golang/"+info.Main.Path+"@v"+strings.ReplaceAll(version, "+", "%2B")
		main.Ref = main.PURL
	}
	main.Hashes = []hash{{"SHA-256", hex.EncodeToString(digest[:])}}
	for _, s := range info.Settings {
		if s.Key == "GOOS" || s.Key == "GOARCH" || s.Key == "CGO_ENABLED" || s.Key == "vcs.revision" {
			main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	std := strings.TrimPrefix(info.GoVersion, "go")
	library := component{Type: "library", Ref: "pkg:golang/stdlib@" + std, Name: "stdlib", Version: std, PURL: "pkg:golang/stdlib@" + std}
	parts := []component{library}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, module(m))
	}
	root := dependency{Ref: main.Ref}
	for _, p := range parts {
		root.On = append(root.On, p.Ref)
	}
	return bom{Format: "CycloneDX", Spec: "1.5", Serial: serial(digest), Version: 1, Metadata: metadata{main}, Components: parts, Dependencies: []dependency{root}}
}

// module returns a module as a component. Its sum is that of go.sum: a hash of a list of hashes, and none of a file,
// which is why it isn't among the hashes.
func module(m *debug.Module) component {
	c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path}
	if m.Version != "" && m.Version != "(devel)" {
		c.PURL += "@" + strings.ReplaceAll(m.Version, "+", "%2B")
	}
	c.Ref = c.PURL
	if m.Sum != "" {
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}

// serial is a UUID made from the binary's digest (RFC 9562, section 5.8).
func serial(digest [sha256.Size]byte) string {
	u := digest[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
