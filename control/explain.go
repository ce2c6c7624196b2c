package control

import (
	"context"
	"net/netip"

	"github.com/postern-link/postern/link"
)

// Explanation says what would happen to a client, step by step.
type Explanation struct {
	Network   link.ID    `json:"network,omitempty"` // "" where the client is in none
	Answer    string     `json:"answer"`            // what DNS does: "endpoint", "pass", "nodata", "servfail", ...
	Addresses []string   `json:"addresses,omitempty"`
	Endpoint  link.ID    `json:"endpoint,omitempty"`
	Service   link.ID    `json:"service,omitempty"`
	State     link.State `json:"state,omitempty"`
	Allowed   bool       `json:"allowed"`
	Reason    string     `json:"reason,omitempty"` // of a refusal, from the closed list of package policy
	Steps     []Step     `json:"steps"`
}

// Step is one thing that was looked at, in order.
type Step struct {
	What   string `json:"what"`           // view, name, endpoint, connection, source, pin, target
	Result string `json:"result"`         // what was found
	Rule   string `json:"rule,omitempty"` // what decided
}

// Explain says what happens to a client that resolves a name and connects to it, and why.
func (c *Control) Explain(ctx context.Context, caller Caller, subscription string, client netip.Addr, name link.Name, port uint16) (Explanation, error) {
	panic("unfinished")
}
