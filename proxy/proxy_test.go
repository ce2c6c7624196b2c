package proxy

import (
	"io"
	"testing"
)

func runChild(string) int { return 0 }

func TestCarries(t *testing.T) {
	w := newWorld(t, Settings{}, service("echo", 7001, echo(t)), endpoint("e", "echo", "127.77.0.1"))
	c := dial(t, "127.77.0.1:7001")
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "hello" {
		t.Fatalf("echo %q, error %v", got, err)
	}
	eventually(t, "the flow has its line", func() bool { return len(w.log.lines("flow ended", "reason=client")) == 1 })
}
