// Policy-rego is a policy program whose rules are written in Rego, the language of Open Policy Agent. OPA is
// part of the program: nothing is asked over the network, and the sandbox stays shut.
//
//	linkpolicy rego {
//	    program  /usr/local/lib/postern/policy-rego
//	    checksum sha256:HEX
//	}
//
// The rules are in flows.rego and what they look up is in tenants.json. Both are part of the executable, so that the
// checksum is theirs too: who changes a rule builds the program (go build, here), writes the new checksum into
// the Corefile and reloads. The node then asks the new program about every live flow, and ends those that it
// denies.
//
// This directory is a module of its own: Postern doesn't depend on OPA. A copy elsewhere needs no replace line in its
// go.mod.
//
// A rule is asked with this input:
//
//	{
//	    "source": "10.1.2.3", "local": "10.200.0.5", "port": 1433, "name": "db.example",
//	    "endpoint": {"id": "sql", "tenant": "contoso", "network": "corp", "link_id": 7},
//	    "service": {"id": "db", "tenant": "fabrikam", "names": ["db.example"], "port": 1433}
//	}
//
// A tenant is that of the API. Endpoints and services that a Corefile declares are the operator's, whose tenant is "": where
// tenants.json has a service that such endpoints lead to, its list needs "" too, or they are refused.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/postern-link/postern/policy/policyplugin"
)

var (
	//go:embed flows.rego
	rules string
	//go:embed tenants.json
	tenants []byte
)

// outside are functions of Rego that ask somebody else, or tell of the machine. Rules that use them don't compile.
var outside = map[string]struct{}{"http.send": {}, "net.lookup_ip_addr": {}, "opa.runtime": {}}

// flows asks rules about flows.
type flows struct {
	policyplugin.Base
	query rego.PreparedEvalQuery
}

// newFlows compiles rules.
func newFlows(ctx context.Context, rules string, data []byte) (flows, error) {
	var known map[string]any
	if err := json.Unmarshal(data, &known); err != nil {
		return flows{}, err
	}
	query, err := rego.New(
		rego.Query("data.postern.flows.verdict"), rego.Module("flows.rego", rules), rego.Store(inmem.NewFromObject(known)),
		rego.UnsafeBuiltins(outside), rego.StrictBuiltinErrors(true), // an error is a refusal, and not a rule that doesn't hold
	).PrepareForEval(ctx)
	return flows{query: query}, err
}

// Authorize implements [policyplugin.Policy].
func (f flows) Authorize(ctx context.Context, q *policyplugin.Flow) (policyplugin.Verdict, error) {
	found, err := f.query.Eval(ctx, rego.EvalInput(input(q))) // ends with ctx
	if err != nil {
		return policyplugin.Verdict{}, err
	}
	if len(found) != 1 || len(found[0].Expressions) != 1 {
		return policyplugin.Verdict{}, errors.New("the rules say nothing")
	}
	return verdict(found[0].Expressions[0].Value)
}

// verdict reads what the rules say. What isn't exactly that is an error: a misspelt word allows nothing.
func verdict(said any) (policyplugin.Verdict, error) {
	words, ok := said.(map[string]any)
	if !ok {
		return policyplugin.Verdict{}, fmt.Errorf("the verdict of the rules is %v", said)
	}
	var v policyplugin.Verdict
	for word, value := range words {
		known := false
		switch word {
		case "allow":
			v.Allow, known = value.(bool)
		case "reason":
			v.Reason, known = value.(string)
		case "seconds":
			var n json.Number
			if n, known = value.(json.Number); known {
				s, err := n.Int64()
				v.ValidFor, known = time.Duration(s)*time.Second, err == nil && s >= 0 && s <= 300
			}
		}
		if !known {
			return policyplugin.Verdict{}, fmt.Errorf("the verdict of the rules has %q: %v", word, value)
		}
	}
	return v, nil
}

// input is what rules see of a flow.
func input(q *policyplugin.Flow) map[string]any {
	names := make([]any, 0, len(q.Service.Names))
	for _, n := range q.Service.Names {
		names = append(names, n)
	}
	return map[string]any{
		"source": q.Source.Addr().String(), "local": q.Local.Addr().String(), "port": int(q.Local.Port()), "name": q.ServerName,
		"endpoint": map[string]any{
			"id": q.Endpoint.ID, "tenant": q.Endpoint.Tenant, "network": q.Endpoint.Network, "link_id": int64(q.Endpoint.LinkID),
		},
		"service": map[string]any{"id": q.Service.ID, "tenant": q.Service.Tenant, "names": names, "port": int(q.Service.Port)},
	}
}

func main() {
	f, err := newFlows(context.Background(), rules, tenants)
	if err != nil {
		fmt.Fprintln(os.Stderr, "policy-rego:", err)
		os.Exit(1)
	}
	policyplugin.Serve(f)
}
