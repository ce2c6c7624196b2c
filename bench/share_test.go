//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRemoveShares: what a benchmark has left that was killed goes, and nothing else.
func TestRemoveShares(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, stays := range map[string]bool{
		fmt.Sprintf(shareName, dead.Process.Pid):          false,
		fmt.Sprintf(shareName, os.Getpid()):               true,
		fmt.Sprintf(shareName, dead.Process.Pid) + "-not": true,
		"postern-bench-":    true,
		"postern-bench--1":  true,
		"postern-bench-0":   true,
		"postern-bench-all": true,
	} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := os.Stat(filepath.Join(root, name)); (err == nil) != stays {
				t.Errorf("%s: %v, want it left: %v", name, err, stays)
			}
		})
	}
	removeShares(root, filepath.Join(root, "not there"))
}
