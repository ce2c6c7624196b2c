package external

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/policyplugin/policypb"
)

// Bounds of what a program says, in bytes, and of how long an answer holds.
const (
	maxReason = 200
	maxValid  = 5 * time.Minute
	maxNames  = 64 // of a service, that it is told
)

// Authorize implements [policy.Program]. It waits at most a quarter of the timeout for its turn, and the timeout
// for the answer.
func (p *Program) Authorize(ctx context.Context, q policy.Question) policy.Answer {
	if !p.config.Flows {
		return policy.Answer{Allow: true}
	}
	in := p.current.Load()
	if in == nil {
		return p.refuse("down", "it isn't running")
	}
	began, k := time.Now(), keyOf(&q)
	if a, ok := in.answers.get(k, began); ok {
		p.metrics.cached.Inc()
		return p.answer(a)
	}
	// A wait that left no time for an answer would make a slow program one that never answers.
	if !p.flows.take(ctx, p.config.Timeout/4) {
		return p.refuse("busy", "it has too many questions to answer")
	}
	resp, err := p.authorize(ctx, in, &q)
	p.flows.give()
	p.metrics.seconds.Observe(time.Since(began).Seconds())
	var a answer
	if err == nil {
		a, err = judged(resp)
	}
	if err != nil {
		return p.failed(ctx, err)
	}
	in.answers.put(k, a, time.Now())
	return p.answer(a)
}

func (p *Program) authorize(ctx context.Context, in *instance, q *policy.Question) (*policypb.AuthorizeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	return in.policy.Authorize(ctx, question(q))
}

// answer is what a program has said of a flow, as it is kept.
type answer struct {
	allow  bool
	reason string
	valid  time.Duration
}

// What makes no sense.
var (
	errEmpty = errors.New("its answer is empty")
	errBoth  = errors.New("it says more than one thing at once")
)

// judged returns what an answer says, or why it says nothing.
func judged(r *policypb.AuthorizeResponse) (answer, error) {
	switch allow, deny := r.GetAllow(), r.GetDeny(); {
	case allow != nil && deny != nil:
		return answer{}, errBoth
	case allow != nil:
		return answer{allow: true, valid: valid(allow.GetValidForMs())}, nil
	case deny != nil:
		return answer{reason: clipped(deny.GetReason(), maxReason), valid: valid(deny.GetValidForMs())}, nil
	}
	return answer{}, errEmpty // or of a kind that we don't know
}

func valid(ms uint32) time.Duration { return min(time.Duration(ms)*time.Millisecond, maxValid) }

// answer returns a as the data plane has it.
func (p *Program) answer(a answer) policy.Answer {
	rule := "policy " + p.config.Name
	if a.allow {
		p.metrics.decision("allow")
		return policy.Answer{Allow: true, Rule: rule}
	}
	p.metrics.decision("deny")
	if a.reason != "" {
		rule += ": " + a.reason
	}
	return policy.Answer{Reason: policy.PolicyDenied, Rule: rule}
}

// refuse returns the refusal of a program that has given no answer.
func (p *Program) refuse(verdict, why string) policy.Answer {
	p.metrics.decision(verdict)
	return policy.Answer{Reason: policy.PolicyError, Rule: "policy " + p.config.Name + ": " + why}
}

// failed is refuse for an error of the call.
func (p *Program) failed(ctx context.Context, err error) policy.Answer {
	switch {
	case ctx.Err() != nil:
		return p.refuse("error", "the flow ended")
	case status.Code(err) == codes.DeadlineExceeded:
		return p.refuse("timeout", "no answer within "+p.config.Timeout.String())
	case p.current.Load() == nil:
		return p.refuse("down", "it has ended")
	}
	return p.refuse("error", reasonOf(err))
}

// reasonOf returns the words of an error that a program may have written.
func reasonOf(err error) string {
	if s, ok := status.FromError(err); ok {
		return clipped(s.Code().String()+": "+s.Message(), maxReason)
	}
	return err.Error()
}

// Review implements [policy.Program]. A program that isn't asked for reviews lets all be.
func (p *Program) Review(ctx context.Context, r policy.Review) policy.Decision {
	if !p.config.Reviews {
		return policy.Decision{State: link.Approved}
	}
	rule := "policy " + p.config.Name
	pending := func(outcome, why string) policy.Decision {
		p.metrics.review(outcome)
		return policy.Decision{State: link.Pending, Reason: why, Rule: rule}
	}
	in := p.current.Load()
	if in == nil {
		return pending("down", "the policy program isn't running")
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTime)
	defer cancel()
	if !p.reviews.take(ctx, reviewTime/4) {
		return pending("busy", "the policy program has too many requests to look at")
	}
	defer p.reviews.give()
	resp, err := in.policy.Review(ctx, reviewed(r))
	if err != nil {
		if status.Code(err) == codes.DeadlineExceeded {
			return pending("timeout", "the policy program has not answered within "+reviewTime.String())
		}
		return pending("error", "the policy program has failed: "+reasonOf(err))
	}
	d, err := decided(resp)
	if err != nil {
		return pending("error", "the policy program makes no sense: "+err.Error())
	}
	if d.State == link.Pending {
		return pending("wait", d.Reason)
	}
	p.metrics.review(map[link.State]string{link.Approved: "approve", link.Rejected: "reject"}[d.State])
	d.Rule = rule
	return d
}

// decided returns what an answer says of a request, or why it says nothing.
func decided(r *policypb.ReviewResponse) (policy.Decision, error) {
	approve, reject, wait := r.GetApprove() != nil, r.GetReject() != nil, r.GetWait() != nil
	switch {
	case approve && !reject && !wait:
		return policy.Decision{State: link.Approved}, nil
	case reject && !approve && !wait:
		return policy.Decision{State: link.Rejected, Reason: clipped(r.GetReject().GetReason(), maxReason)}, nil
	case wait && !approve && !reject:
		return policy.Decision{State: link.Pending, Reason: clipped(r.GetWait().GetReason(), maxReason)}, nil
	case !approve && !reject && !wait:
		return policy.Decision{}, errEmpty
	}
	return policy.Decision{}, errBoth
}

// question returns a flow as the wire has it.
func question(q *policy.Question) *policypb.AuthorizeRequest {
	r := &q.Request
	return &policypb.AuthorizeRequest{
		Flow: q.Flow, Source: r.Source.Addr().String(), SourcePort: uint32(r.Source.Port()),
		Local: r.Local.Addr().String(), LocalPort: uint32(r.Local.Port()), ServerName: string(r.Name),
		Endpoint: endpoint(q.Verdict.Endpoint), Service: service(q.Verdict.Service),
	}
}

// reviewed returns a request for a connection as the wire has it.
func reviewed(r policy.Review) *policypb.ReviewRequest {
	n := &policypb.Network{Id: string(r.Network.ID), Tenant: r.Network.Tenant}
	for _, p := range r.Network.Prefixes {
		n.Prefixes = append(n.Prefixes, p.String())
	}
	return &policypb.ReviewRequest{
		Network: n, Service: service(r.Service), Endpoint: endpoint(r.Endpoint), Message: r.Message, Caller: r.Caller,
	}
}

func endpoint(e *link.Endpoint) *policypb.Endpoint {
	return &policypb.Endpoint{
		Id: string(e.ID), Tenant: e.Tenant, Network: string(e.Network), Service: string(e.Service),
		Address: e.Address.String(), LinkId: uint32(e.Connection.LinkID),
	}
}

func service(v *link.Service) *policypb.Service {
	w := &policypb.Service{Id: string(v.ID), Tenant: v.Tenant, Port: uint32(v.Port)}
	for i := range v.Names[:min(len(v.Names), maxNames)] {
		w.Names = append(w.Names, string(v.Names[i].Public))
	}
	return w
}
