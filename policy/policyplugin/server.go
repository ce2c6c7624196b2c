package policyplugin

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// maxMessage is the largest message of either direction, in bytes. The node has the same bound.
const maxMessage = 64 << 10

// ServerOptions returns the limits that a program has towards a node, for servers that don't come from [Serve].
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(recovered),
	}
}

// recovered makes a panic of the program an error of the one call: a refusal, not an outage.
func recovered(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "panic in %s: %v\n%s", info.FullMethod, p, debug.Stack())
			err = status.Error(codes.Internal, "the program panicked")
		}
	}()
	return h(ctx, req)
}

// Register serves p on a gRPC server: what [Serve] does, for those who serve it in another way.
func Register(s grpc.ServiceRegistrar, p Policy) {
	policypb.RegisterPolicyServer(s, &server{policy: p})
}

// server turns what is asked into plain types, and answers back.
type server struct {
	policypb.UnimplementedPolicyServer
	policy Policy
}

// Authorize implements [policypb.PolicyServer].
func (s *server) Authorize(ctx context.Context, r *policypb.AuthorizeRequest) (*policypb.AuthorizeResponse, error) {
	v, err := s.policy.Authorize(ctx, &Flow{
		ID:         r.GetFlow(),
		Source:     addrPort(r.GetSource(), r.GetSourcePort()),
		Local:      addrPort(r.GetLocal(), r.GetLocalPort()),
		ServerName: r.GetServerName(),
		Endpoint:   endpoint(r.GetEndpoint()),
		Service:    service(r.GetService()),
	})
	if err != nil {
		return nil, failed(err)
	}
	valid := milliseconds(v.ValidFor)
	if v.Allow {
		return &policypb.AuthorizeResponse{Allow: &policypb.Allow{ValidForMs: valid}}, nil
	}
	return &policypb.AuthorizeResponse{Deny: &policypb.Deny{Reason: v.Reason, ValidForMs: valid}}, nil
}

// Review implements [policypb.PolicyServer].
func (s *server) Review(ctx context.Context, r *policypb.ReviewRequest) (*policypb.ReviewResponse, error) {
	n := r.GetNetwork()
	d, err := s.policy.Review(ctx, &Request{
		Network:  Network{ID: n.GetId(), Tenant: n.GetTenant(), Prefixes: prefixes(n.GetPrefixes())},
		Service:  service(r.GetService()),
		Endpoint: endpoint(r.GetEndpoint()),
		Message:  r.GetMessage(),
		Caller:   r.GetCaller(),
	})
	if err != nil {
		return nil, failed(err)
	}
	switch d.Outcome {
	case Approve:
		return &policypb.ReviewResponse{Approve: &policypb.Approve{}}, nil
	case Reject:
		return &policypb.ReviewResponse{Reject: &policypb.Reject{Reason: d.Reason}}, nil
	}
	return &policypb.ReviewResponse{Wait: &policypb.Wait{Reason: d.Reason}}, nil
}

// Changed implements [policypb.PolicyServer].
func (s *server) Changed(ctx context.Context, r *policypb.ChangedRequest) (*policypb.ChangedResponse, error) {
	c := &Changes{Revision: r.GetRevision(), Whole: r.GetWhole(), More: r.GetMore()}
	for _, k := range r.GetConnections() {
		c.Connections = append(c.Connections, Connection{
			Endpoint: endpoint(k.GetEndpoint()), State: k.GetState(), Suspended: k.GetSuspended(), Gone: k.GetGone(),
		})
	}
	if err := s.policy.Changed(ctx, c); err != nil {
		return nil, failed(err)
	}
	return &policypb.ChangedResponse{}, nil
}

// failed returns an error of the program as gRPC carries it.
func failed(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}

func endpoint(e *policypb.Endpoint) Endpoint {
	a, _ := netip.ParseAddr(e.GetAddress()) // one that isn't valid says so by itself
	return Endpoint{
		ID: e.GetId(), Tenant: e.GetTenant(), Network: e.GetNetwork(), Service: e.GetService(), Address: a, LinkID: e.GetLinkId(),
	}
}

func service(v *policypb.Service) Service {
	return Service{ID: v.GetId(), Tenant: v.GetTenant(), Names: v.GetNames(), Port: uint16(v.GetPort())}
}

func addrPort(addr string, port uint32) netip.AddrPort {
	a, err := netip.ParseAddr(addr)
	if err != nil || port > 65535 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(port))
}

func prefixes(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// milliseconds never rounds up, and is 0 for what is negative.
func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d, 0), time.Hour) / time.Millisecond)
}
