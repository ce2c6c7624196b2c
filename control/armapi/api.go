// Package armapi is the wire format of the control API: Azure Resource Manager's, so far that the SDKs, the
// command line and the Terraform provider that were written for Azure work against it. Nothing is decided
// here: a handler reads the request, calls an operation of package control, and renders what came of it.
//
// Each row of the API is an [operation] in a table: networkOperations, dnsOperations, posternOperations and
// frontOperations, joined in operations.go. Before a handler is called, in this order: the Host and Origin
// of the request are ours (a web page in an operator's browser has others), its caller is known, the path
// and the method exist, the API version is named, the caller isn't too fast, and the subscription and the
// resource group in the path are there for the caller. What a caller may not see answers as what is not there.
package armapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
)

// Directory is who the API asks for callers: a [*identity.Directory].
type Directory interface {
	control.Tenants
	Authenticate(ctx context.Context, c identity.Credential) (control.Caller, error)
	IssueToken(ctx context.Context, clientID, secret, audience, issuerURL string) (token string, seconds int, err error)
}

// Config is what an API is made of. Control, Directory and Snapshot must be there.
type Config struct {
	Control   *control.Control
	Directory Directory
	// URL is where clients reach the API, such as https://postern.example:8443; a path is cut off
	// requests that begin with it. nil: what the Host header of each request says.
	URL *url.URL
	// Listen is the address that the server listens on, "ADDR:PORT": its address is a valid Host.
	Listen string
	// Rate is how many requests a second an identity may make, with a burst of twice as many. 0 is
	// [DefaultRate], below 0 no bound.
	Rate float64
	// Clock tells the time that rates are judged by. nil: time.Now.
	Clock      func() time.Time
	Log        *slog.Logger // nil: silent
	Registerer prometheus.Registerer
}

// DefaultRate is [Config.Rate] where it isn't said.
const DefaultRate = 200

// API is the control API, an http.Handler. It is to be served over TLS.
type API struct {
	Config
	router  *router
	types   map[string][]string // of resources, by namespace
	hosts   hosts
	callers *limiter // requests, by identity
	sources *limiter // failed sign-ins, by address
	metrics *metrics

	lastSubnets atomic.Pointer[subnetsOf] // see [API.subnets]
}

// New returns an API. The error is that of registering its metrics.
func New(c Config) (*API, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	a := &API{
		Config:  c,
		router:  newRouter(operations()),
		types:   resourceTypes(operations()),
		hosts:   newHosts(c.URL, c.Listen),
		callers: newLimiter(c.Rate, 2*c.Rate),
		sources: newLimiter(failuresPerSecond, failureBurst),
	}
	var err error
	a.metrics, err = newMetrics(c.Registerer)
	return a, err
}

// ServeHTTP implements [http.Handler].
func (a *API) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	start := time.Now()
	r := &request{Request: hr, api: a, id128: requestID()}
	answer := a.answer(r)
	code := a.write(w, r, answer)
	a.metrics.count(r.operation, code, time.Since(start))
}
