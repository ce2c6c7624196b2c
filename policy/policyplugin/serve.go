package policyplugin

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Handshake is what a program and a node show each other before they talk. The cookie is no secret: it
// keeps a program from being run by hand.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "POSTERN_POLICY_PROGRAM",
	MagicCookieValue: "5d1c1f0d0a5e4d7f9a63b1d62d7e8c04",
}

// PluginName is the name of the one plugin that a program has.
const PluginName = "policy"

// stderr is the one that the process was started with: go-plugin replaces os.Stderr.
var stderr = os.Stderr

// byHand is what somebody reads who runs a program in a shell.
const byHand = `This is a policy program of Postern. It isn't run by hand: a node starts it and asks it.

In a Corefile:

    linkpolicy NAME {
        program %s
        checksum SHA-256
    }

The checksum is what "sha256sum FILE" prints.
`

// parentPoll is how often a program looks whether the node that started it is still there. The kernel says so
// first, on Linux.
const parentPoll = time.Second

// Serve runs the program until the node ends it, and doesn't return. Run by hand it says what it is and
// exits with 2.
func Serve(p Policy) {
	if os.Getenv(Handshake.MagicCookieKey) != Handshake.MagicCookieValue {
		name := "/path/of/this"
		if path, err := os.Executable(); err == nil {
			name = path
		}
		fmt.Fprintf(os.Stderr, byHand, name)
		os.Exit(2)
	}
	go watchParent(os.Getppid())
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{
			int(Handshake.ProtocolVersion): {PluginName: &servedPlugin{policy: p}},
		},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server { return grpc.NewServer(append(o, ServerOptions()...)...) },
		Logger:     hclog.NewNullLogger(),
	})
	os.Exit(0)
}

// watchParent ends the process when the one that started it has gone.
func watchParent(parent int) {
	for range time.Tick(parentPoll) {
		if os.Getppid() != parent {
			os.Exit(0)
		}
	}
}

// servedPlugin registers a program with go-plugin's server.
type servedPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	policy Policy
}

// GRPCServer implements [plugin.GRPCPlugin].
func (p *servedPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	Register(s, p.policy)
	return nil
}

// GRPCClient implements [plugin.GRPCPlugin]. A program is no client.
func (*servedPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("a policy program is asked by a node")
}
