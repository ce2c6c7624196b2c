package external

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/postern-link/postern/policy/policyplugin"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// TestMain: the binary of the tests is the launcher, the programs, and the node that is killed.
func TestMain(m *testing.M) {
	Launch()
	switch {
	case os.Getenv(policyplugin.Handshake.MagicCookieKey) != "":
		program(os.Args[1])
	case os.Getenv("POSTERN_TEST_NODE") != "":
		killedNode()
	}
	os.Exit(m.Run())
}

// program is what the tests run, by the name of what is wrong with it.
func program(kind string) {
	switch kind {
	case "obeys":
		policyplugin.Serve(obeys{})
	case "lies":
		serveLies()
	case "exits":
		fmt.Fprintln(os.Stderr, "no licence\x1b[2J found")
		os.Exit(3)
	case "garbage":
		fmt.Println("Hello, \x1b]0;world\a")
	case "endless":
		for {
			fmt.Print(strings.Repeat("x", 4096))
		}
	case "elsewhere": // names an address that isn't its own
		fmt.Println("1|1|tcp|127.0.0.1:22|grpc|")
		select {}
	case "silent":
		fmt.Fprintln(os.Stderr, "waiting for godot")
		select {}
	case "floods":
		go flood(os.Stderr)
		policyplugin.Serve(obeys{floods: true})
	}
	select {}
}

// obeys does what the server name of a flow says.
type obeys struct {
	policyplugin.Base
	floods bool
}

func (o obeys) Authorize(ctx context.Context, f *policyplugin.Flow) (policyplugin.Verdict, error) {
	word, arg, _ := strings.Cut(f.ServerName, " ")
	switch word {
	case "allow":
		return policyplugin.Allow(), nil
	case "kept":
		return policyplugin.Allow().For(time.Hour), nil
	case "pid":
		return policyplugin.Deny(fmt.Sprint(os.Getpid())), nil
	case "count":
		counted++
		return policyplugin.Deny(fmt.Sprint(counted)).For(time.Minute), nil
	case "hang":
		<-ctx.Done()
		select {} // not even then
	case "slow":
		time.Sleep(240 * time.Millisecond)
		return policyplugin.Allow(), nil
	case "crash":
		os.Exit(9)
	case "panic":
		panic("at the disco")
	case "print":
		go flood(os.Stderr)
		return policyplugin.Allow(), nil
	case "big":
		return policyplugin.Deny(strings.Repeat("b", 1<<20)), nil
	case "escape":
		return policyplugin.Deny("no\n\x1b[31mlevel=info \u202e"), nil
	}
	return policyplugin.Deny(spy(word, arg)), nil
}

var counted int // by one question at a time

func (obeys) Review(ctx context.Context, r *policyplugin.Request) (policyplugin.Decision, error) {
	switch r.Message {
	case "approve":
		return policyplugin.Decision{Outcome: policyplugin.Approve}, nil
	case "reject":
		return policyplugin.Decision{Outcome: policyplugin.Reject, Reason: "no ticket"}, nil
	case "wait":
		return policyplugin.Decision{Reason: "not open yet"}, nil
	case "hang":
		<-ctx.Done()
	}
	return policyplugin.Decision{}, errors.New("ticket system away")
}

// Changed says what it was told.
func (obeys) Changed(_ context.Context, c *policyplugin.Changes) error {
	fmt.Printf("told: revision %d whole %v more %v connections %d.\n", c.Revision, c.Whole, c.More, len(c.Connections))
	return nil
}

// flood prints a gigabyte.
func flood(w io.Writer) {
	line := []byte(strings.Repeat("\x00\x1b", 500) + "\n")
	for range 1 << 20 {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

// spy tries to get out, and says how far it came.
func spy(word, arg string) string {
	var err error
	switch word {
	case "read":
		_, err = os.ReadFile(arg)
	case "write":
		err = os.WriteFile(arg, []byte("x"), 0o600)
	case "list":
		_, err = os.ReadDir(arg)
	case "dial":
		var c net.Conn
		network, address, _ := strings.Cut(arg, " ")
		if c, err = net.DialTimeout(network, address, time.Second); err == nil {
			c.Write([]byte("secret"))
		}
	case "listen":
		_, err = net.Listen("tcp", "127.0.0.1:0")
	case "signal":
		err = syscall.Kill(os.Getppid(), 0)
	case "undead":
		_, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, 0, 0)
		err = e
	case "session":
		_, err = syscall.Setsid()
	case "process":
		err = exec.Command("/proc/self/exe").Start()
	case "trace":
		err = syscall.PtraceAttach(os.Getppid())
	case "environment":
		if e := os.Environ(); len(e) > 0 {
			names := ""
			for _, v := range e {
				n, _, _ := strings.Cut(v, "=")
				names += n + " "
			}
			return names
		}
	case "descriptors":
		open := ""
		for fd := 3; fd < 64; fd++ {
			var st syscall.Stat_t
			if syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
				open += fmt.Sprint(fd, " ")
			}
		}
		return "open: " + open
	case "who":
		dir, _ := os.Getwd()
		g, _ := os.Getgroups()
		return fmt.Sprint(os.Getuid(), os.Getgid(), g, dir)
	case "dump":
		var l syscall.Rlimit
		err = syscall.Getrlimit(syscall.RLIMIT_CORE, &l)
		return fmt.Sprint(l.Cur, l.Max, err)
	default:
		return "what is " + word + "?"
	}
	if err == nil {
		return word + ": done"
	}
	return fmt.Sprintf("%s: %v", word, err)
}

// liar speaks the wire format by itself.
type liar struct {
	policypb.UnimplementedPolicyServer
	plugin.NetRPCUnsupportedPlugin
}

// Authorize answers nonsense.
func (liar) Authorize(_ context.Context, r *policypb.AuthorizeRequest) (*policypb.AuthorizeResponse, error) {
	a := &policypb.AuthorizeResponse{}
	switch r.GetServerName() {
	case "both":
		a.Allow, a.Deny = &policypb.Allow{}, &policypb.Deny{}
	case "unknown": // a field 9, that this version doesn't know
		a.ProtoReflect().SetUnknown([]byte{9<<3 | 0, 1})
	case "allow":
		a.Allow = &policypb.Allow{}
		a.ProtoReflect().SetUnknown([]byte{9<<3 | 0, 1})
	}
	return a, nil
}

// GRPCServer implements [plugin.GRPCPlugin].
func (l liar) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	policypb.RegisterPolicyServer(s, l)
	return nil
}

// GRPCClient implements [plugin.GRPCPlugin].
func (liar) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.ErrUnsupported
}

func serveLies() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  policyplugin.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{1: {policyplugin.PluginName: liar{}}},
		GRPCServer:       plugin.DefaultGRPCServer,
	})
}
