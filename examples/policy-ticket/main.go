// Policy-ticket is a policy program: a request for a connection is approved by the list of its service only if
// the ticket that its message names is approved in a ticket system.
//
//	linkpolicy tickets {
//	    program  /usr/local/lib/postern/policy-ticket https://tickets.example/api/change/
//	    checksum sha256:HEX
//	    ask      reviews
//	    allow    network
//	}
//
// It is built with CGO_ENABLED=0 go build ./examples/policy-ticket, and HEX is what sha256sum prints of it.
//
// The message begins with the ticket's number. The ticket system answers GET of the address with the number behind it:
// 200 with the text "approved" or "rejected", anything else is no decision, and a person decides.
//
// It is asked about requests through the API alone: endpoints that a Corefile declares are the operator's own.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/postern-link/postern/policy/policyplugin"
)

// tickets asks a ticket system.
type tickets struct {
	policyplugin.Base
	system string // the address that a number follows
}

// number is what a ticket is called.
var number = regexp.MustCompile(`^[A-Z]{2,5}[0-9]{1,12}\b`)

// Review implements [policyplugin.Policy].
func (t tickets) Review(ctx context.Context, r *policyplugin.Request) (policyplugin.Decision, error) {
	ticket := number.FindString(r.Message)
	if ticket == "" {
		return policyplugin.Decision{Reason: "the message begins with no ticket number"}, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.system+url.PathEscape(ticket), nil)
	if err != nil {
		return policyplugin.Decision{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return policyplugin.Decision{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return policyplugin.Decision{}, err
	}
	switch state := strings.TrimSpace(string(text)); {
	case resp.StatusCode == http.StatusOK && state == "approved":
		return policyplugin.Decision{Outcome: policyplugin.Approve}, nil
	case resp.StatusCode == http.StatusOK && state == "rejected":
		return policyplugin.Decision{Outcome: policyplugin.Reject, Reason: "ticket " + ticket + " is rejected"}, nil
	}
	return policyplugin.Decision{Reason: fmt.Sprintf("ticket %s isn't decided (%s)", ticket, resp.Status)}, nil
}

func main() {
	t := tickets{}
	if len(os.Args) == 2 {
		t.system = os.Args[1]
	}
	policyplugin.Serve(t)
}
