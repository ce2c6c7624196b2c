package cli

import "testing"

// What is a flag of the commands must be none of the server, and the other way around.
func TestIsFlag(t *testing.T) {
	for arg, want := range map[string]bool{
		"--context": true, "--output": true, "--output=json": true, "-o": true, "-ojson": true, "--url": true, "--subscription": true,
		"-conf": false, "--conf": false, "-p": false, "-p=53": false, "--pidfile": false, "-quiet": false, "-version": false,
		"--force": false, "service": false, "": false, "-": false, "--": false,
	} {
		if got := IsFlag(arg); got != want {
			t.Errorf("%q: %v, want %v", arg, got, want)
		}
	}
}
