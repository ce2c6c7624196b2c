// Package cel compiles conditions of rules that are written in the Common Expression Language
// (https://cel.dev): an expression without loops over what is known of a flow, whose answer is true or false.
//
//	cidr('10.1.0.0/16').containsIP(source) && !name.startsWith('test-')
//
// An expression is checked when it is compiled: its syntax, its types, and the most that it can cost. So
// what goes wrong later is little, such as a conversion of a name that is no number, and is an error.
package cel

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"github.com/postern-link/postern/policy"
)

// Bounds of an expression.
const (
	maxText    = 4096   // bytes of its text
	maxDepth   = 64     // of what is nested in it
	maxCost    = 10_000 // in CEL's units: about one for each step and ten bytes that are looked at
	maxPattern = 1000   // instructions of a regular expression
)

// MaxTotal is what the expressions of one policy may cost together: a unit takes half a microsecond
// at most, so that asking all of them about a flow takes ten milliseconds at most.
const MaxTotal = 20_000

// Cost returns the most that an expression can cost, in CEL's units; 0 for one that isn't of this package.
func Cost(e policy.Expression) uint64 {
	if e, ok := e.(*expression); ok {
		return e.cost
	}
	return 0
}

// Variables are what an expression may speak of, with the type of each, in the order of the manual.
func Variables() [][2]string {
	all := make([][2]string, len(variables))
	for i, v := range variables {
		all[i] = [2]string{v.name, v.kind.String()}
	}
	return all
}

var variables = []struct {
	name string
	kind *cel.Type
}{
	{"source", ext.IPType},
	{"source_port", cel.IntType},
	{"port", cel.IntType},
	{"name", cel.StringType},
	{"endpoint", cel.StringType},
	{"network", cel.StringType},
	{"tenant", cel.StringType},
	{"service", cel.StringType},
	{"service_tenant", cel.StringType},
	{"link_id", cel.IntType},
	{"time", cel.TimestampType},
}

// environment is made at the first use: it takes some milliseconds.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.StdLib(),
		ext.Network(),
		cel.ClearMacros(), // all, exists, map and filter loop
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserExpressionSizeLimit(maxText),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateRegexLiterals(), cel.ValidateRegexProgramSizeLimit(maxPattern)),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	return cel.NewCustomEnv(append(options, zoned()...)...)
})

// expression implements [policy.Expression].
type expression struct {
	text    string
	program cel.Program
	uses    policy.Uses
	cost    uint64
}

// Compile returns the condition that a text says. The error says what is wrong with it, and where, in one line.
func Compile(text string) (_ policy.Expression, err error) {
	defer func() {
		if r := recover(); r != nil { // of the library: a text must not end the process
			err = fmt.Errorf("the expression can't be compiled: %v", r)
		}
	}()
	if len(text) > maxText {
		return nil, fmt.Errorf("the expression has %d bytes; %d are allowed", len(text), maxText)
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, explain(issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("the expression is of type %s; a condition is bool", t)
	}
	if err := zones(checked); err != nil {
		return nil, err
	}
	estimate, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, fmt.Errorf("cost of the expression: %w", err)
	}
	if estimate.Max > maxCost {
		return nil, fmt.Errorf("the expression may cost %d; %d are allowed", estimate.Max, maxCost)
	}
	program, err := env.Program(checked, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	return &expression{text, program, uses(checked), estimate.Max}, nil
}

// explain makes one line of what the compiler says, which draws below the text where it means.
func explain(issues *cel.Issues) error {
	for _, e := range issues.Errors() {
		return fmt.Errorf("column %d: %s", max(1, e.Location.Column()+1), strings.Join(strings.Fields(e.Message), " "))
	}
	return errors.New("the expression is not CEL")
}

// uses returns what the answer depends on: the variables that are spoken of.
func uses(a *cel.Ast) (u policy.Uses) {
	for _, ref := range a.NativeRep().ReferenceMap() {
		switch ref.Name {
		case "name":
			u |= policy.UsesName
		case "time":
			u |= policy.UsesTime
		case "source_port":
			u |= policy.UsesPort
		}
	}
	return u
}

// Uses implements [policy.Expression].
func (e *expression) Uses() policy.Uses { return e.uses }

// String implements [policy.Expression].
func (e *expression) String() string { return e.text }

// Holds implements [policy.Expression].
func (e *expression) Holds(f policy.Facts) (bool, error) {
	out, _, err := e.program.Eval(&facts{f})
	if err != nil {
		return false, err
	}
	holds, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the expression is %v, not true or false", out.Type())
	}
	return holds, nil
}

// facts gives an expression what it asks for.
type facts struct{ policy.Facts }

// ResolveName implements [cel.Activation].
func (f *facts) ResolveName(name string) (any, bool) {
	switch name {
	case "source":
		return ext.IP{Addr: f.Source.Addr()}, true
	case "source_port":
		return types.Int(f.Source.Port()), true
	case "port":
		return types.Int(f.Port), true
	case "name":
		return types.String(f.Name), true
	case "endpoint":
		return types.String(f.Endpoint.ID), true
	case "network":
		return types.String(f.Endpoint.Network), true
	case "tenant":
		return types.String(f.Endpoint.Tenant), true
	case "service":
		return types.String(f.Service.ID), true
	case "service_tenant":
		return types.String(f.Service.Tenant), true
	case "link_id":
		return types.Int(f.Endpoint.Connection.LinkID), true
	case "time":
		return types.Timestamp{Time: f.At}, true
	}
	return nil, false
}

// Parent implements [cel.Activation].
func (f *facts) Parent() cel.Activation { return nil }

// sizes tells how long the variables can be: those that are text have at most 255 bytes.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if len(n.Path()) == 1 && n.Type().Kind() == types.StringKind {
		return &cost.SizeEstimate{Min: 0, Max: 255}
	}
	return nil
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// calls yields the calls of an expression.
func calls(a *cel.Ast, yield func(function string, args []ast.Expr)) {
	ast.PostOrderVisit(a.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.CallKind {
			yield(e.AsCall().FunctionName(), e.AsCall().Args())
		}
	}))
}
