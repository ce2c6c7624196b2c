package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"
)

// How an issuer's keys are kept.
const (
	fetchTime   = 5 * time.Second  // for discovery and keys together
	retryAfter  = 10 * time.Second // between two fetches, whoever asks: unknown key IDs cost the issuer nothing
	refreshAge  = 15 * time.Minute // from this age on they are fetched again, in the background
	keysLast    = 24 * time.Hour   // without the issuer; then no token of it is taken
	answerBytes = 1 << 20
	smallestRSA = 2048 // bits
)

// errUnknownKey: the issuer doesn't have the key that the token names.
var errUnknownKey = errors.New("signed with a key that the issuer doesn't have")

// issuer keeps the keys of an OpenID Connect issuer. Nothing is fetched before the first token of it comes.
type issuer struct {
	url    string
	ca     digest // of the CA file, zero: the system's roots
	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	spawn  func(func(context.Context)) bool // runs a fetch, false: the directory is closed

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time     // when keys were; zero: never
	tried   time.Time     // when the last fetch ended; zero: never
	err     error         // how
	flight  chan struct{} // closed at the end of the fetch under way; nil: none
}

// newClient returns an HTTP client for one issuer: no redirects, no connections kept, answers of bounded size.
func newClient(ca []byte, dial func(context.Context, string, string) (net.Conn, error)) (*http.Client, error) {
	var roots *x509.CertPool
	if ca != nil {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return nil, errors.New("no certificate in PEM")
		}
	}
	return &http.Client{
		Timeout: fetchTime,
		Transport: bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dial, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			// A connection that is being made outlives the request that wanted it.
			TLSHandshakeTimeout:    fetchTime,
			MaxResponseHeaderBytes: 64 << 10,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("an issuer that redirects isn't followed")
		},
	}, nil
}

// bounded cuts answers off.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(q *http.Request) (*http.Response, error) {
	a, err := b.next.RoundTrip(q)
	if err == nil {
		a.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(a.Body, answerBytes), a.Body}
	}
	return a, err
}

// find returns the issuer's keys with an ID, all of them for "". It waits for a fetch if it needs one: for
// the first keys, for a key that it doesn't know, and when those it has are too old. The error is
// [errUnknownKey], or wraps [ErrUnavailable].
func (i *issuer) find(ctx context.Context, kid string) (*oidc.StaticKeySet, error) {
	for waited := false; ; waited = true {
		i.mu.Lock()
		now := i.now()
		keys, age := i.match(kid), now.Sub(i.fetched)
		waiting := !i.tried.IsZero() && now.Sub(i.tried) < retryAfter
		if len(keys.PublicKeys) > 0 && age < keysLast {
			if age >= refreshAge && !waiting {
				i.start()
			}
			i.mu.Unlock()
			return keys, nil
		}
		if waited || waiting && i.flight == nil {
			err := i.err
			i.mu.Unlock()
			if err == nil {
				return nil, errUnknownKey
			}
			return nil, fmt.Errorf("%w: issuer %s: %w", ErrUnavailable, i.url, err)
		}
		flight := i.start()
		i.mu.Unlock()
		if flight == nil {
			return nil, fmt.Errorf("%w: closed", ErrUnavailable)
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: issuer %s: %w", ErrUnavailable, i.url, ctx.Err())
		}
	}
}

// match returns the keys with an ID. The caller holds the lock.
func (i *issuer) match(kid string) *oidc.StaticKeySet {
	set := &oidc.StaticKeySet{}
	for _, k := range i.keys {
		if kid == "" || k.KeyID == kid {
			set.PublicKeys = append(set.PublicKeys, k.Key)
		}
	}
	return set
}

// start begins a fetch where none is under way and returns what is closed at its end; nil: the directory
// is closed. The caller holds the lock.
func (i *issuer) start() chan struct{} {
	if i.flight != nil {
		return i.flight
	}
	flight := make(chan struct{})
	if !i.spawn(func(ctx context.Context) { i.refresh(ctx, flight) }) {
		return nil
	}
	i.flight = flight
	return flight
}

// refresh fetches the keys. If that fails, those that are there stay.
func (i *issuer) refresh(ctx context.Context, flight chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	keys, err := i.fetch(ctx)
	if err != nil {
		i.log.Warn("the keys of an issuer can't be had", "issuer", i.url, "err", clip(err.Error()))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tried, i.err, i.flight = i.now(), err, nil
	if err == nil {
		i.keys, i.fetched = keys, i.tried
	}
	close(flight)
}

// fetch asks the issuer for its keys (OpenID Connect Discovery 1.0, section 4; RFC 7517).
func (i *issuer) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.url)
	if err != nil {
		return nil, err
	}
	var at struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&at); err != nil {
		return nil, err
	}
	if u, err := url.Parse(at.JWKS); err != nil || u.Scheme != "https" {
		return nil, errors.New("its jwks_uri is no https URL")
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, at.JWKS, nil)
	if err != nil {
		return nil, err
	}
	a, err := i.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("its keys: %s", a.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(a.Body).Decode(&set); err != nil {
		return nil, fmt.Errorf("its keys: %w", err)
	}
	keys := usable(set.Keys)
	if len(keys) == 0 {
		return nil, errors.New("it has no key that a signature can be checked with")
	}
	return keys, nil
}

// usable returns the public keys for signatures. Those of other kinds are left out: a set may hold them
// for others.
func usable(all []json.RawMessage) []jose.JSONWebKey {
	var keys []jose.JSONWebKey
	for _, text := range all {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(text) != nil || !k.Valid() || k.Use != "" && k.Use != "sig" {
			continue
		}
		switch key := k.Key.(type) {
		case *rsa.PublicKey:
			if key.N.BitLen() < smallestRSA {
				continue
			}
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			continue
		}
		keys = append(keys, k)
	}
	return slices.Clip(keys)
}
