// Package identity says who a caller of the API is. It reads one file, which names the tenants with
// their subscriptions and the identities with their roles, checks what a caller shows (a static token,
// a token of an OpenID Connect issuer, a client certificate, or a token that it issued itself for a
// client ID and secret) and answers with a [control.Caller]. What the caller may do is decided in
// package control. docs/identities.md describes the file.
//
// The file in force is one immutable value behind an atomic pointer: a sign-in takes no lock. Every
// credential is judged against the file as it is now, tokens that were issued earlier included, so an
// identity that is taken out of the file has no access from the moment that the file was read.
package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a sign-in can end with. The errors that [Directory.Authenticate] returns are these themselves
// and say no more, since they may reach the caller; the log has the detail.
var (
	// ErrUnauthenticated: no credential, a malformed one, or a wrong one. Which of them isn't said, and
	// takes the same time.
	ErrUnauthenticated = errors.New("not signed in")
	// ErrUnavailable: whether the credential is good can't be found out now, since the issuer of the
	// token can't be reached or the key for tokens of our own can't be had. Try again later.
	ErrUnavailable = errors.New("sign-in is not available")
)

// Options are what a directory is opened with. Every zero value is usable.
type Options struct {
	// Log gets reloads and refused sign-ins, without secrets. nil: silent.
	Log *slog.Logger
	// Clock tells the time that expiry is judged by. nil: time.Now.
	Clock func() time.Time
	// KeyFile holds the private key that tokens of clients are signed with: PEM, PKCS #8, P-256. It is
	// made when it is first needed. "": the path of the identities file with ".key" behind it.
	KeyFile string
	// Dial connects to issuers, within some bounded time. nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Registerer takes the metrics. nil: none.
	Registerer prometheus.Registerer
}

// Credential is what a caller shows. If Bearer is there it alone decides.
type Credential struct {
	// Bearer is the token of the Authorization header, without the word Bearer and the space. "": none.
	Bearer string
	// Chains are the verified chains of the TLS connection, tls.ConnectionState.VerifiedChains. They
	// must not be its PeerCertificates, which anybody can present.
	Chains [][]*x509.Certificate
	// From is the remote address, for the log and the audit.
	From string
}
