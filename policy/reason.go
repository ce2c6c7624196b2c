package policy

import "slices"

// Reason is why a flow was refused or ended: one word of a closed list, used in logs, metrics and
// flow records. [Reasons] lists them.
type Reason string

// While the name is judged.
const (
	NoTLS        Reason = "no_tls"        // the first bytes aren't TLS
	Truncated    Reason = "truncated"     // the client ended before its first message was whole
	TooLarge     Reason = "too_large"     // the first message is larger than the bound
	Timeout      Reason = "timeout"       // the first message wasn't whole in time
	Malformed    Reason = "malformed"     // the first bytes break the rules of what they claim to be
	NoName       Reason = "no_name"       // a ClientHello without a server name
	BadName      Reason = "bad_name"      // a server name that isn't a canonical host name
	NameDenied   Reason = "name_denied"   // a server name that isn't one of the service's
	ECHDenied    Reason = "ech_denied"    // an encrypted ClientHello: the true name can't be seen
	HelloChanged Reason = "hello_changed" // the second ClientHello says something else than the first
	HostDenied   Reason = "host_denied"   // a Host that isn't one of the service's
)

// Before and during the dial.
const (
	NoEndpoint   Reason = "no_endpoint"   // no endpoint has the address
	NotApproved  Reason = "not_approved"  // the connection isn't Approved
	Suspended    Reason = "suspended"     // the provider suspended the connection
	SourceDenied Reason = "source_denied" // the client isn't in the allow-list
	PolicyDenied Reason = "policy_denied" // a rule, an egress list or a policy program said no
	PolicyError  Reason = "policy_error"  // there was no verdict: no snapshot, unknown pin, failed rule or program
	Limit        Reason = "limit"         // too many flows at once or in a time, no memory, no place at a target, or no NAT port left
	NoPort       Reason = "no_port"       // the service doesn't listen on the port
	NoTarget     Reason = "no_target"     // no target answered
)

// After the dial.
const (
	Revoked Reason = "revoked" // a newer snapshot no longer allows the flow
	Idle    Reason = "idle"    // nothing moved for the service's idle timeout
	Drain   Reason = "drain"   // this node is going away
	Client  Reason = "client"  // the client ended it
	Target  Reason = "target"  // the target ended it
)

var reasons = []Reason{
	NoTLS, Truncated, TooLarge, Timeout, Malformed, NoName, BadName, NameDenied, ECHDenied, HelloChanged, HostDenied,
	NoEndpoint, NotApproved, Suspended, SourceDenied, PolicyDenied, PolicyError, Limit, NoPort, NoTarget,
	Revoked, Idle, Drain, Client, Target,
}

// Reasons returns every reason that there is, in the order in which a flow can meet them.
func Reasons() []Reason { return slices.Clone(reasons) }
