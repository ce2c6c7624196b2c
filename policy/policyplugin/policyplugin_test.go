package policyplugin_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/policy/policyplugin"
	"github.com/postern-link/postern/policy/policyplugin/policytest"
)

// TestMain: the binary of the tests is a program too, for TestByHand.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "by-hand" {
		policyplugin.Serve(policyplugin.Base{})
	}
	os.Exit(m.Run())
}

// told is a program that answers what it is told to and remembers what it was asked.
type told struct {
	verdict  policyplugin.Verdict
	decision policyplugin.Decision
	err      error
	flow     *policyplugin.Flow
	request  *policyplugin.Request
	changes  *policyplugin.Changes
}

func (p *told) Authorize(_ context.Context, f *policyplugin.Flow) (policyplugin.Verdict, error) {
	p.flow = f
	return p.verdict, p.err
}

func (p *told) Review(_ context.Context, r *policyplugin.Request) (policyplugin.Decision, error) {
	p.request = r
	return p.decision, p.err
}

func (p *told) Changed(_ context.Context, c *policyplugin.Changes) error {
	p.changes = c
	return p.err
}

var (
	anEndpoint = policyplugin.Endpoint{
		ID: "sql", Tenant: "contoso", Network: "corp", Service: "db", Address: netip.MustParseAddr("10.200.0.5"), LinkID: 7,
	}
	aService = policyplugin.Service{ID: "db", Tenant: "fabrikam", Names: []string{"db.example"}, Port: 1433}
	aFlow    = policyplugin.Flow{
		ID: "f1", Source: netip.MustParseAddrPort("10.1.2.3:40000"), Local: netip.MustParseAddrPort("[fd00::5]:1433"),
		ServerName: "db.example", Endpoint: anEndpoint, Service: aService,
	}
	aRequest = policyplugin.Request{
		Network: policyplugin.Network{ID: "corp", Tenant: "contoso", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
		Service: aService, Endpoint: anEndpoint, Message: "CHG0012345", Caller: "alice",
	}
)

// TestWhatIsAsked: every field reaches the program as it was.
func TestWhatIsAsked(t *testing.T) {
	p := &told{}
	c := policytest.Start(t, p)
	changes := policyplugin.Changes{Revision: 9, Whole: true, More: true, Connections: []policyplugin.Connection{
		{Endpoint: anEndpoint, State: "Approved", Suspended: true}, {Endpoint: anEndpoint, State: "Rejected", Gone: true},
	}}
	if _, err := c.Authorize(t.Context(), &aFlow); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Review(t.Context(), &aRequest); err != nil {
		t.Fatal(err)
	}
	if err := c.Changed(t.Context(), &changes); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]any{{p.flow, &aFlow}, {p.request, &aRequest}, {p.changes, &changes}} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("the program was asked %+v, want %+v", pair[0], pair[1])
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  policyplugin.Verdict
	}{
		{"zero", policyplugin.Verdict{}},
		{"allow", policyplugin.Allow()},
		{"allow for a while", policyplugin.Allow().For(time.Minute)},
		{"deny", policyplugin.Deny("no ticket")},
		{"deny for a while", policyplugin.Deny("no ticket").For(time.Second)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := policytest.Start(t, &told{verdict: tc.say}).Authorize(t.Context(), &aFlow)
			if err != nil || got != tc.say {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestDecisions(t *testing.T) {
	for _, say := range []policyplugin.Decision{
		{}, {Outcome: policyplugin.Approve}, {Outcome: policyplugin.Reject, Reason: "no"}, {Outcome: policyplugin.Wait, Reason: "ask Bob"},
	} {
		got, err := policytest.Start(t, &told{decision: say}).Review(t.Context(), &aRequest)
		if err != nil || got != say {
			t.Errorf("got %+v, %v, want %+v", got, err, say)
		}
	}
}

// panics is a program with a bug.
type panics struct{ policyplugin.Base }

func (panics) Authorize(context.Context, *policyplugin.Flow) (policyplugin.Verdict, error) {
	panic("index out of range")
}

// TestErrorsRefuse: neither an error nor a panic nor the absence of an answer allows, and the program lives on.
func TestErrorsRefuse(t *testing.T) {
	for name, p := range map[string]policyplugin.Policy{
		"error": &told{verdict: policyplugin.Allow(), err: errors.New("database away")},
		"panic": panics{}, "unasked": policyplugin.Base{},
	} {
		t.Run(name, func(t *testing.T) {
			c := policytest.Start(t, p)
			for range 2 {
				if v, err := c.Authorize(t.Context(), &aFlow); err == nil || v.Allow {
					t.Errorf("got %+v, %v", v, err)
				}
			}
		})
	}
}

// TestByHand: who runs a program in a shell is told what it is.
func TestByHand(t *testing.T) {
	cmd := exec.Command(os.Args[0], "by-hand")
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "It isn't run by hand") {
		t.Errorf("%v, with the words %q", err, out)
	}
}
