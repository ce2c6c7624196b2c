package cli

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// explanation is what would happen to a client.
type explanation struct {
	Revision  uint64   `json:"revision"`
	Network   string   `json:"network,omitempty"`
	Answer    string   `json:"answer"`
	Addresses []string `json:"addresses,omitempty"`
	Endpoint  string   `json:"endpoint,omitempty"`
	Service   string   `json:"service,omitempty"`
	State     string   `json:"state,omitempty"`
	Allowed   bool     `json:"allowed"`
	Reason    string   `json:"reason,omitempty"`
	Depends   string   `json:"depends,omitempty"`
	Steps     []step   `json:"steps"`
	Targets   []target `json:"targets,omitempty"`
}

// target is one of the service, for its provider.
type target struct {
	Target string  `json:"target"`
	State  string  `json:"state"`
	Rule   string  `json:"rule,omitempty"`
	Site   string  `json:"site,omitempty"`
	First  bool    `json:"first"`
	Flows  int     `json:"flows"`
	Share  float64 `json:"share,omitempty"`
	Until  string  `json:"until,omitempty"`
}

type step struct {
	What   string `json:"what"`
	Result string `json:"result"`
	Rule   string `json:"rule,omitempty"`
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain CLIENT NAME[:PORT]", Short: "say what a client gets that asks for a name and connects to it, and why",
		Long: "Says what happens to a client, an address in one of your networks, that resolves a name and connects to it:\n" +
			"the network it is in, the answer of DNS, the endpoint, the state of its connection, the verdict on the flow,\n" +
			"and whether a target answers, each with the rule that decided.",
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := netip.ParseAddr(args[0])
			if err != nil {
				return usagef("client %q isn't an address", args[0])
			}
			query := url.Values{"client": {client.String()}, "name": {args[1]}}
			if name, port, ok := strings.Cut(args[1], ":"); ok {
				if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
					return usagef("port %q: 1 to 65535 are allowed", port)
				}
				query = url.Values{"client": {client.String()}, "name": {name}, "port": {port}}
			}
			k, err := a.dial()
			if err != nil {
				return err
			}
			path, err := k.inSubscription(posternProvider, "explain")
			if err != nil {
				return err
			}
			var x explanation
			if err := k.get(c.Context(), path, posternVersion, query, &x); err != nil {
				return fmt.Errorf("explain: %w", err)
			}
			return a.print(x, func() table {
				t := table{head: []string{"STEP", "RESULT", "RULE"}}
				for _, s := range x.Steps {
					t.row(s.What, s.Result, s.Rule)
				}
				t.row("verdict", x.verdict(), "")
				return t
			})
		},
	}
}

// kept reports whether all that judge what is asked elsewhere refuse it; false where nobody does.
func (x *explanation) kept() (refused bool) {
	for _, s := range x.Steps {
		if s.What == "exit" {
			if !strings.HasPrefix(s.Result, "refused") {
				return false
			}
			refused = true
		}
	}
	return refused
}

// verdict is the end of an explanation in words.
func (x *explanation) verdict() string {
	switch {
	case x.Endpoint == "" && x.Answer == "pass" && x.kept():
		return "not ours, and asked nowhere else"
	case x.Endpoint == "" && x.Answer == "pass":
		return "not ours: the next server answers"
	case x.Endpoint == "":
		return "no connection to an endpoint"
	case x.Allowed && x.Answer == "endpoint":
		return "allowed"
	case x.Depends != "":
		return "depends on the " + x.Depends
	case x.Allowed:
		return "the endpoint would let it in, but DNS doesn't lead there"
	}
	return "refused: " + x.Reason
}
