package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
	"github.com/postern-link/postern/store/etcd"
	"github.com/prometheus/client_golang/prometheus"
)

// Place says where state lives. It is a description and nothing is open for it. Two that are equal mean
// the same state, reached the same way: the state of a running node can't change.
type Place struct {
	Bolt string // path of the file, absolute; "": Etcd
	Etcd Etcd
}

// Etcd is a cluster that several nodes share, and how this node speaks to it.
type Etcd struct {
	Endpoints string // of the cluster's members, "https://HOST:PORT", joined by spaces
	Prefix    string // of all keys; "" is the default of package etcd
	CA        string // file with the certificates that members are checked against; "": those of the system
	Cert, Key string // files of the node's own certificate; "": it has none
	User      string // "": none
	Password  string // file that the user's password is in
	ReadOnly  bool   // the credentials may only read: the node declares nothing and commits nothing
	Socket    string // of the node, for backup and restore; "": none
}

// PlaceError is an error of what a [Place] says, such as a file that isn't there.
type PlaceError struct{ Err error }

func (e *PlaceError) Error() string { return e.Err.Error() }

func (e *PlaceError) Unwrap() error { return e.Err }

// Shared reports whether other nodes may have the same state.
func (p Place) Shared() bool { return p.Bolt == "" }

// String names the place for logs and errors.
func (p Place) String() string {
	if !p.Shared() {
		return p.Bolt
	}
	s := "etcd at " + strings.ReplaceAll(p.Etcd.Endpoints, " ", ", ")
	if p.Etcd.Prefix != "" {
		s += " under " + p.Etcd.Prefix
	}
	return s
}

// Socket returns the path of the Unix socket of the node that runs with the state, "" where it has none.
func (p Place) Socket() string {
	if p.Shared() {
		return p.Etcd.Socket
	}
	return SocketPath(p.Bolt)
}

// Check reads the files that the place names. Errors are [*PlaceError] and say which file.
func (p Place) Check() error {
	if !p.Shared() {
		return nil
	}
	_, err := p.Etcd.options()
	return err
}

// Open opens the store: a file at once, or the error is [store.ErrLocked]; a cluster when it answers, or
// the error is that of ctx. Errors about the place itself are [*PlaceError].
func (p Place) Open(ctx context.Context, log *slog.Logger, r prometheus.Registerer) (store.Store, error) {
	if !p.Shared() {
		return bolt.Open(p.Bolt, bolt.Options{Log: log, Registerer: r})
	}
	o, err := p.Etcd.options()
	if err != nil {
		return nil, err
	}
	o.Log, o.Registerer = log, r
	return etcd.Open(ctx, o)
}

// options returns what package etcd wants to know.
func (e Etcd) options() (etcd.Options, error) {
	o := etcd.Options{Endpoints: strings.Fields(e.Endpoints), Prefix: e.Prefix, Username: e.User, ReadOnly: e.ReadOnly}
	var err error
	if o.TLS, err = e.tls(); err == nil {
		o.Password, err = e.password()
	}
	if err != nil {
		return etcd.Options{}, &PlaceError{err}
	}
	return o, nil
}

// tls returns the configuration of TLS, nil where the endpoints are spoken to in clear.
func (e Etcd) tls() (*tls.Config, error) {
	if !strings.HasPrefix(e.Endpoints, "https://") {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pem, err := os.ReadFile(e.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", e.CA)
		}
	}
	if e.Cert == "" {
		return c, nil
	}
	if _, err := e.keyPair(); err != nil {
		return nil, err
	}
	// Read anew for each connection: certificates are renewed while the node lives.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return e.keyPair() }
	return c, nil
}

func (e Etcd) keyPair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", e.Cert, e.Key, err)
	}
	return &pair, nil
}

// password returns the first line of the file of the password.
func (e Etcd) password() (string, error) {
	if e.User == "" {
		return "", nil
	}
	b, err := os.ReadFile(e.Password)
	if err != nil {
		return "", err
	}
	line, rest, _ := strings.Cut(strings.TrimRight(string(b), "\r\n"), "\n")
	if line == "" || rest != "" {
		return "", errors.New(e.Password + ": a password file holds one line")
	}
	return line, nil
}
