package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	networkVersion = "2025-05-01" // of Microsoft.Network
	groupVersion   = "2021-04-01" // of resource groups
	posternVersion = "2026-11-01" // of Postern.Network

	requestTimeout = 60 * time.Second
	maxAnswer      = 64 << 20 // bytes of one answer that is read whole
	maxPages       = 10000    // of one list
	maxTries       = 4        // of a request that changes nothing
)

// client speaks to the API.
type client struct {
	connection
	at    string // base URL
	auth  string // token
	http  *http.Client
	pause func(ctx context.Context, d time.Duration) error
}

// dial makes the client of a command. Nothing is sent yet.
func (a *app) dial() (*client, error) {
	c, err := a.flags.complete(a.Getenv)
	if err != nil {
		return nil, err
	}
	k := &client{connection: c, pause: pause}
	if k.at, err = c.base(); err != nil {
		return nil, err
	}
	if k.auth, err = c.token(); err != nil {
		return nil, err
	}
	if k.auth == "" && c.Cert == "" {
		return nil, errNoSignIn
	}
	trust, err := c.tls()
	if err != nil {
		return nil, err
	}
	k.http = &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true},
		// The API redirects nobody; a token isn't for where somebody else points to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return k, nil
}

// call is one request.
type call struct {
	method, path string
	version      string // api-version
	query        url.Values
	header       map[string]string
	body         any // nil: none
}

// do sends a request and decodes its answer into out, nil to drop it. The status is that of a success.
func (k *client) do(ctx context.Context, c call, out any) (status int, err error) {
	resp, cancel, err := k.send(ctx, c)
	if err != nil {
		return 0, err
	}
	defer cancel()
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, &unreachable{fmt.Errorf("%s: reading the answer: %w", k.at, err)}
	case len(text) > maxAnswer:
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	if out == nil || len(text) == 0 {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return 0, fmt.Errorf("the answer of %s isn't what was expected: %w", k.at, err)
	}
	return resp.StatusCode, nil
}

// send sends a request until there is an answer that is a success. What only reads is sent again where the
// API says that it can't answer now.
func (k *client) send(ctx context.Context, c call) (*http.Response, context.CancelFunc, error) {
	var body []byte
	if c.body != nil {
		var err error
		if body, err = json.Marshal(c.body); err != nil {
			return nil, nil, fmt.Errorf("request: %w", err)
		}
	}
	for try := 1; ; try++ {
		resp, cancel, err := k.once(ctx, c, body)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode/100 == 2 {
			return resp, cancel, nil
		}
		err = problem(resp)
		resp.Body.Close()
		cancel()
		wait, again := retryAfter(resp, try)
		if c.method != http.MethodGet || !again || try == maxTries {
			return nil, nil, err
		}
		if err := k.pause(ctx, wait); err != nil {
			return nil, nil, &unreachable{err}
		}
	}
}

// once sends a request one time. The answer is good for [requestTimeout]; its reader calls cancel.
func (k *client) once(ctx context.Context, c call, body []byte) (*http.Response, context.CancelFunc, error) {
	target := c.path
	if !strings.HasPrefix(target, k.at+"/") {
		query := url.Values{"api-version": {c.version}}
		for name, v := range c.query {
			query[name] = v
		}
		target = k.at + c.path + "?" + query.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	req, err := http.NewRequestWithContext(ctx, c.method, target, bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "postern-cli")
	if k.auth != "" {
		req.Header.Set("Authorization", "Bearer "+k.auth)
	}
	for name, v := range c.header {
		req.Header.Set(name, v)
	}
	resp, err := k.http.Do(req)
	if err != nil {
		cancel()
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the query
		}
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			err = fmt.Errorf("%w: give the certificates to trust by --ca or POSTERN_CA, such as the node's postern-api.crt", err)
		}
		return nil, nil, &unreachable{fmt.Errorf("%s: %w", k.at, err)}
	}
	return resp, cancel, nil
}

// problem returns the error that an answer holds.
func problem(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxConfig)) // what is there of it
	var body struct {
		Error struct{ Code, Message string }
	}
	_ = json.Unmarshal(text, &body)                                                                                    // what isn't ours has no code
	if resp.StatusCode == http.StatusBadRequest && strings.Contains(string(text), "HTTP request to an HTTPS server") { // of net/http
		return usagef("the API speaks TLS: use https in its URL")
	}
	return &apiError{resp.StatusCode, body.Error.Code, body.Error.Message}
}

// retryAfter says whether a request that changes nothing is worth another try, and when.
func retryAfter(resp *http.Response, try int) (time.Duration, bool) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	wait := time.Second << (try - 1)
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		wait = time.Duration(min(n, 30)) * time.Second
	}
	return wait, true
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// get reads one resource.
func (k *client) get(ctx context.Context, path, version string, query url.Values, out any) error {
	_, err := k.do(ctx, call{method: http.MethodGet, path: path, version: version, query: query}, out)
	return err
}

// list reads all pages of a list.
func list[T any](ctx context.Context, k *client, path, version string, query url.Values) ([]T, error) {
	all := []T{}
	next := call{method: http.MethodGet, path: path, version: version, query: query}
	for range maxPages {
		var page struct {
			Value    []T    `json:"value"`
			NextLink string `json:"nextLink"`
		}
		if _, err := k.do(ctx, next, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		if page.NextLink == "" {
			return all, nil
		}
		if !strings.HasPrefix(page.NextLink, k.at+"/") {
			return nil, fmt.Errorf("the API sends us on to %s, which isn't %s", page.NextLink, k.at)
		}
		next = call{method: http.MethodGet, path: page.NextLink}
	}
	return nil, fmt.Errorf("the list has more than %d pages", maxPages)
}
