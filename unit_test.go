package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mostExposed is the score that the unit may have, in tenths: 15 is 1.5 of 10, "OK". What is left of it are the network and the
// port that a proxy is there for, and /proc/sys, without which Go's backlog of a listener is 128.
const mostExposed = "15"

// analyze runs systemd-analyze, which needs no running systemd. Where CI runs it has to be there.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("systemd-analyze isn't installed; \"make deps\" does")
	} else if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestUnit: systemd takes the unit without a complaint, and finds little that it could still take away.
func TestUnit(t *testing.T) {
	const unit = "examples/systemd/postern.service"
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/postern -sandbox on -conf /etc/postern/Corefile$`).FindAll(text, -1)); n != 1 {
		t.Errorf("%d lines ExecStart as it is documented, want 1", n)
	}
	here := filepath.Join(t.TempDir(), "postern.service")
	if err := os.WriteFile(here, []byte(strings.Replace(string(text), "/usr/local/bin/postern", "/bin/true", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := analyze(t, "verify", "--man=no", here); strings.Contains(said, "postern.service") {
		t.Errorf("systemd says\n%s", said)
	}
	if said := analyze(t, "security", "--offline=true", "--threshold="+mostExposed, here); !strings.Contains(said, "Overall exposure level") {
		t.Errorf("no score:\n%s", said)
	}
}
