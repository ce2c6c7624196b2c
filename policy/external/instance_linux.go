package external

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/postern-link/postern/policy/policyplugin"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// startTime is how long a program may take to say its address, and to answer there.
const startTime = 10 * time.Second

// Bounds of the connection to a program, in bytes.
const (
	maxMessage = 64 << 10 // of either direction
	maxHeaders = 16 << 10
)

// instance is one run of a program that answers.
type instance struct {
	mu      sync.Mutex // guards process until begin returns
	process *process
	conn    *grpc.ClientConn
	policy  policypb.PolicyClient
	place   *place
	answers answers
	stdio   sync.WaitGroup
}

// begin runs a program until it answers. Its error is what an operator reads.
func begin(ctx context.Context, c Config, exe *executable, out *output) (*instance, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	dir, err := newPlace()
	if err != nil {
		return nil, err
	}
	in := &instance{place: dir}
	if err := in.begin(ctx, c, exe, out); err != nil {
		in.end()
		return nil, err
	}
	return in, nil
}

func (in *instance) begin(ctx context.Context, c Config, exe *executable, out *output) error {
	config := &plugin.ClientConfig{
		HandshakeConfig:  policyplugin.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{int(policyplugin.Handshake.ProtocolVersion): {}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     startTime,
		Logger:           hclog.NewNullLogger(),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: in.place.path},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			p, err := newProcess(c, exe, cmd, dir, out)
			if err != nil {
				return nil, err
			}
			in.mu.Lock()
			in.process = p
			in.mu.Unlock()
			return p, nil
		},
	}
	addr, err := in.handshake(ctx, config)
	if err != nil {
		return err
	}
	if config.TLSConfig == nil || config.TLSConfig.RootCAs == nil {
		return errors.New("it has shown no certificate in its first line")
	}
	if in.conn, err = dial(addr, config.TLSConfig); err != nil {
		return err
	}
	in.policy = policypb.NewPolicyClient(in.conn)
	// go-plugin's servers have this service, and must.
	health, err := grpc_health_v1.NewHealthClient(in.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("it doesn't answer at its address: %s", clipped(err.Error(), 300))
	}
	if health.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("it says of itself that it is %s", clipped(health.GetStatus().String(), 40))
	}
	in.stdio.Go(func() { readStdio(in.conn, out) })
	return nil
}

// handshake starts the process and returns where it says that it answers.
func (in *instance) handshake(ctx context.Context, config *plugin.ClientConfig) (net.Addr, error) {
	client := plugin.NewClient(config)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // go-plugin takes no context
		defer close(done)
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.process != nil {
			_ = in.process.Kill(context.Background())
		}
	})
	addr, err := client.Start()
	if !stop() {
		<-done
	}
	switch {
	case ctx.Err() != nil && in.process != nil:
		return nil, fmt.Errorf("it has not said its address within %s", startTime)
	case err == nil:
		return addr, nil
	}
	if in.process == nil {
		return nil, err
	}
	_ = in.process.Kill(ctx)
	<-in.process.exited
	var ended *exec.ExitError
	if errors.As(in.process.code, &ended) && ended.Exited() { // by itself, before it was killed
		return nil, fmt.Errorf("it ended before it answered: %w", ended)
	}
	return nil, errors.New(clipped(err.Error(), 500)) // with words of the program's
}

// dial connects to a program: with the certificate that it has shown, and with bounds of our own.
func dial(addr net.Addr, c *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///policy-program",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(c)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0), grpc.WithNoProxy())
}

// end kills the run and removes what it had. It waits until nothing is left.
func (in *instance) end() {
	if in.conn != nil {
		in.conn.Close()
	}
	if in.process != nil {
		in.process.end()
	}
	in.stdio.Wait()
	in.place.remove()
}

// done is closed when the process has ended, and why says how then.
func (in *instance) done() <-chan struct{} { return in.process.exited }

func (in *instance) why() error {
	if in.process.code == nil {
		return errors.New("it ended by itself")
	}
	return in.process.code
}
