package privatelink_test

import (
	"os"
	"strings"
	"testing"
)

// Each corefile of the README starts a server.
func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(readme), "~~~ corefile\n")[1:]
	if len(examples) == 0 {
		t.Fatal("no examples")
	}
	for _, e := range examples {
		corefile, _, closed := strings.Cut(e, "~~~\n")
		if !closed {
			t.Fatalf("not closed: %s", e)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(corefile), "\n")
		t.Run(first, func(t *testing.T) {
			start(t, strings.ReplaceAll(corefile, ":1053 ", ":0 "))
		})
	}
}
