// Package policytest runs a policy program in its author's test as a node would ask it: over gRPC, with the
// limits of the wire, and failing closed.
package policytest

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/postern-link/postern/policy/policyplugin"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// How long a node waits where its Corefile says nothing else.
const (
	AuthorizeTimeout = 250 * time.Millisecond
	ReviewTimeout    = 5 * time.Second
)

// maxMessage is the largest message of either direction, in bytes.
const maxMessage = 64 << 10

// Start serves p until the test ends, and returns a client that asks it as a node does. Errors and answers that
// make no sense are what a node takes them for: a refusal, a request that waits.
func Start(t testing.TB, p policyplugin.Policy) policyplugin.Policy {
	t.Helper()
	lis := bufconn.Listen(maxMessage)
	server := grpc.NewServer(policyplugin.ServerOptions()...)
	policyplugin.Register(server, p)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }() // ends with Stop
	conn, err := grpc.NewClient("passthrough:///policy",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop(); <-done })
	return client{policypb.NewPolicyClient(conn)}
}

// client asks a program in plain types.
type client struct{ policy policypb.PolicyClient }

// Authorize implements [policyplugin.Policy]. The verdict of an error refuses.
func (c client) Authorize(ctx context.Context, f *policyplugin.Flow) (policyplugin.Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, AuthorizeTimeout)
	defer cancel()
	a, err := c.policy.Authorize(ctx, &policypb.AuthorizeRequest{
		Flow: f.ID, Source: text(f.Source.Addr()), SourcePort: uint32(f.Source.Port()),
		Local: text(f.Local.Addr()), LocalPort: uint32(f.Local.Port()), ServerName: f.ServerName,
		Endpoint: endpoint(f.Endpoint), Service: service(f.Service),
	})
	if err != nil {
		return policyplugin.Verdict{}, err
	}
	if allow, deny := a.GetAllow(), a.GetDeny(); allow != nil && deny == nil {
		return policyplugin.Allow().For(time.Duration(allow.GetValidForMs()) * time.Millisecond), nil
	} else {
		return policyplugin.Deny(deny.GetReason()).For(time.Duration(deny.GetValidForMs()) * time.Millisecond), nil
	}
}

// Review implements [policyplugin.Policy]. The decision of an error waits.
func (c client) Review(ctx context.Context, r *policyplugin.Request) (policyplugin.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, ReviewTimeout)
	defer cancel()
	network := &policypb.Network{Id: r.Network.ID, Tenant: r.Network.Tenant}
	for _, p := range r.Network.Prefixes {
		network.Prefixes = append(network.Prefixes, p.String())
	}
	a, err := c.policy.Review(ctx, &policypb.ReviewRequest{
		Network: network, Service: service(r.Service), Endpoint: endpoint(r.Endpoint), Message: r.Message, Caller: r.Caller,
	})
	switch {
	case err != nil:
		return policyplugin.Decision{}, err
	case a.GetReject() != nil && a.GetApprove() == nil && a.GetWait() == nil:
		return policyplugin.Decision{Outcome: policyplugin.Reject, Reason: a.GetReject().GetReason()}, nil
	case a.GetApprove() != nil && a.GetReject() == nil && a.GetWait() == nil:
		return policyplugin.Decision{Outcome: policyplugin.Approve}, nil
	}
	return policyplugin.Decision{Reason: a.GetWait().GetReason()}, nil
}

// Changed implements [policyplugin.Policy].
func (c client) Changed(ctx context.Context, changes *policyplugin.Changes) error {
	r := &policypb.ChangedRequest{Revision: changes.Revision, Whole: changes.Whole, More: changes.More}
	for _, k := range changes.Connections {
		r.Connections = append(r.Connections, &policypb.Connection{
			Endpoint: endpoint(k.Endpoint), State: k.State, Suspended: k.Suspended, Gone: k.Gone,
		})
	}
	_, err := c.policy.Changed(ctx, r)
	return err
}

func endpoint(e policyplugin.Endpoint) *policypb.Endpoint {
	return &policypb.Endpoint{
		Id: e.ID, Tenant: e.Tenant, Network: e.Network, Service: e.Service, Address: text(e.Address), LinkId: e.LinkID,
	}
}

func service(v policyplugin.Service) *policypb.Service {
	return &policypb.Service{Id: v.ID, Tenant: v.Tenant, Names: v.Names, Port: uint32(v.Port)}
}

// text returns an address as the wire has it, "" for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
