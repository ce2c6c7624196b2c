package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-link/postern/internal/freeport"
)

// TestSpy is the child of TestProgramAtSocket, which asks a node for its state.
func TestSpy(t *testing.T) {
	socket := os.Getenv("POSTERN_TEST_SOCKET")
	if socket == "" {
		t.Skip("it is started by TestProgramAtSocket")
	}
	resp, err := Client(socket).Get("http://node/backup")
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	resp.Body.Close()
	fmt.Println("answered:", resp.Status)
}

// G07: a policy program of the node's own user doesn't get the state by its socket, and another child does.
func TestProgramAtSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	n := open(t, config(t, path, freeport.Get(t), backend(t, "one")))
	defer closeNode(t, n)
	spy := func(as string) string {
		out := make(chan string)
		go func() {
			runtime.LockOSThread() // and never undone: what the thread has given up ends with it
			if as == "program" {
				const noNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
				if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, noNewPrivs, 1, 0, 0, 0, 0); e != 0 {
					t.Error(e)
				}
			}
			c := exec.Command(os.Args[0], "-test.run=^TestSpy$", "-test.count=1")
			c.Env = append(os.Environ(), "POSTERN_TEST_SOCKET="+SocketPath(path))
			b, err := c.CombinedOutput()
			out <- fmt.Sprint(string(b), err)
		}()
		return <-out
	}
	if got := spy("program"); !strings.Contains(got, "refused:") {
		t.Errorf("a program: %s", got)
	}
	if got := spy("operator"); !strings.Contains(got, "answered: 200") {
		t.Errorf("an operator: %s", got)
	}
}
