package integration

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdProgram: program FILE SOURCE builds a policy program, from a directory of this repository or a Go file of the
// scenario, and prints its checksum as a Corefile has it.
func cmdProgram(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "program FILE SOURCE")
	file, source := ts.MkAbs(args[0]), "./"+args[1]
	if strings.HasSuffix(args[1], ".go") {
		source = ts.MkAbs(args[1])
	}
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o755))
	build := exec.Command("go", "build", "-o", file, source)
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("build %s: %v\n%s", source, err, out)
	}
	body, err := os.ReadFile(file)
	ts.Check(err)
	say(ts, "sha256:%x", sha256.Sum256(body))
}
