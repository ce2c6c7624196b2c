package etcd

import (
	"context"
	"errors"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// A connection whose packets are dropped is given up after both: 8 s. A server refuses clients that ask
	// more often than every 5 s (its --grpc-keepalive-min-time).
	keepAlive        = 5 * time.Second
	keepAliveTimeout = 3 * time.Second
	// maxRedial bounds the wait between two tries to connect: gRPC's own bound is 120 s.
	maxRedial   = time.Second
	dialTimeout = 3 * time.Second
	// readTimeout bounds one small read. The next goes to another member.
	readTimeout = time.Second
	// pageTimeout bounds one read of many keys.
	pageTimeout = 10 * time.Second
	// loadTimeout bounds one read of the whole state.
	loadTimeout = time.Minute
)

// newClient makes a client. It doesn't wait for a connection, but with a user name for its first answer.
func newClient(ctx context.Context, o *Options) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            o.Endpoints,
		TLS:                  o.TLS,
		Username:             o.Username,
		Password:             o.Password,
		Context:              ctx,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveTimeout,
		// Servers forgive few such pings; [Store.confirm] reads of each member in turn, which makes them forget.
		PermitWithoutStream: true,
		MaxCallSendMsgSize:  o.RequestBytes + 512*1024, // the servers' allowance; theirs is the limit that speaks
		Logger:              zap.NewNop(),              // what matters comes back as an error
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(tellUnsent), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRedial},
			MinConnectTimeout: dialTimeout,
		})},
	})
}

func (s *Store) closeClient() error {
	if s.client == nil {
		return nil
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// get reads with a quorum. A member that doesn't answer within try is left, and the next one asked, until ctx is
// done.
func (s *Store) get(ctx context.Context, try time.Duration, rel string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, done := s.joined(ctx)
	defer done()
	var last error // why the last try but those that ctx ended
	for {
		once, cancel := context.WithTimeout(ctx, try)
		resp, err := s.client.Get(once, s.key(rel), opts...)
		cancel()
		switch {
		case err == nil || refusal(err):
			return resp, err
		case ctx.Err() != nil && last != nil && !unsent(err):
			return nil, last
		case ctx.Err() != nil:
			return nil, err
		}
		last = err
		if unsent(err) {
			last = errors.New(status.Convert(err).Message())
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// joined returns ctx, ended with the store as well.
func (s *Store) joined(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// codeOf returns the gRPC code of an error of the client.
func codeOf(err error) codes.Code {
	var coded interface{ Code() codes.Code }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return status.Code(err)
}

// refusal reports whether an error says that a request was refused, and so had no effect. All others leave that
// open.
func refusal(err error) bool {
	switch codeOf(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.ResourceExhausted, codes.OutOfRange, codes.Unimplemented:
		return true
	}
	return false
}

// tellUnsent marks the errors of requests that waited for a connection until their time was up. gRPC knows why there
// was none; the client would say "deadline exceeded", as if the request might have been sent.
func tellUnsent(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	st := status.Convert(err)
	if why, ok := strings.CutPrefix(st.Message(), "latest balancer error: "); ok {
		return status.Error(codeUnsent, "no connection: "+why)
	}
	if strings.Contains(st.Message(), "while waiting for connections to become ready") {
		return status.Error(codeUnsent, "no connection: "+st.Message())
	}
	return err
}

// codeUnsent is one that no server gives, nor makes the client try again.
const codeUnsent = codes.Aborted

// unsent reports whether an error says that there was no connection to send a request on.
func unsent(err error) bool { return codeOf(err) == codeUnsent }

// pause waits for d, or less when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
