package export

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Bounds of what a receiver may say.
const (
	mostAnswer  = 64 << 10
	mostHeader  = 64 << 10
	mostAsked   = 15 * time.Minute // that a receiver can ask to be left alone
	mostSecret  = 64 << 10
	leastSecret = 16 // bytes of a key for signatures
)

// The headers of a signed body, and of all.
const (
	headerTime      = "Postern-Timestamp" // seconds since 1970, signed with the body
	headerSignature = "Postern-Signature" // "sha256=" and HMAC-SHA256 of timestamp, "." and body as it is sent, in hexadecimal
	headerRecords   = "Postern-Records"   // "flows" or "audit"
)

// CheckURL returns the address of a receiver as it is used. Plain HTTP is for this machine alone unless insecure. No error shows the address,
// which may hold a secret.
func CheckURL(kind Kind, text string, insecure bool) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return "", errors.New("that is no URL; one looks like https://siem.example/v1/logs")
	case u.User != nil:
		return "", errors.New("the URL has a user; use \"token FILE\"")
	case u.Fragment != "":
		return "", errors.New("the URL has a fragment")
	case u.Scheme == "http":
		if at, err := netip.ParseAddr(u.Hostname()); !insecure && (err != nil || !at.IsLoopback()) {
			return "", errors.New("plain http is for a loopback address, such as http://127.0.0.1:4318; use https, or say \"insecure\" and records are sent in clear")
		}
	case u.Scheme != "https":
		return "", errors.New("the URL is neither https nor http")
	}
	if kind == OTLP && strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/logs"
	}
	return u.String(), nil
}

// client speaks HTTP to one receiver. Its files are read anew when they change.
type client struct {
	config Config

	mu   sync.Mutex
	http *http.Transport
	seen fs.FileInfo // the file of authorities
}

func newClient(c Config) (*client, error) {
	cl := &client{config: c}
	for _, f := range []struct {
		path  string
		least int
	}{{c.Token, 1}, {c.Secret, leastSecret}} {
		if _, err := readSecret(f.path, f.least); err != nil {
			return nil, err
		}
	}
	if c.Cert != "" {
		if _, err := cl.pair(nil); err != nil {
			return nil, err
		}
	}
	_, err := cl.get()
	return cl, err
}

// readSecret returns the one line of a file; nothing for no file. No error shows any of it.
func readSecret(path string, least int) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostSecret))
	if err != nil {
		return nil, err
	}
	line := bytes.TrimRight(text, "\r\n")
	if len(line) < least || bytes.ContainsAny(line, "\r\n\x00") {
		return nil, fmt.Errorf("%s: the file must hold one line of at least %d bytes", path, least)
	}
	return line, nil
}

// get returns the client, another one where the file of authorities has changed. One that can't be read leaves those before in force.
func (c *client) get() (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil && c.config.CA == "" {
		return c.http, nil
	}
	roots, seen, err := c.authorities()
	if err != nil && c.http == nil {
		return nil, err
	}
	if c.http != nil && (err != nil || roots == nil) {
		return c.http, nil
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if c.config.Cert != "" {
		settings.GetClientCertificate = c.pair
	}
	c.seen = seen
	c.http = &http.Transport{ // without a client around it, which reads where it is redirected to
		Proxy: proxyOf, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSClientConfig: settings, TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression: true, MaxConnsPerHost: 2, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: mostHeader,
	}
	return c.http, nil
}

// proxyOf is that of the environment, for what is encrypted.
func proxyOf(r *http.Request) (*url.URL, error) {
	if r.URL.Scheme == "http" {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// authorities reads their file; nil where there is none, or it is the one that was read last.
func (c *client) authorities() (*x509.CertPool, fs.FileInfo, error) {
	if c.config.CA == "" {
		return nil, nil, nil
	}
	info, err := os.Stat(c.config.CA) // before it is read: a change in between is found by the next look
	if err != nil {
		return nil, nil, err
	}
	if old := c.seen; old != nil && os.SameFile(info, old) && info.ModTime().Equal(old.ModTime()) && info.Size() == old.Size() {
		return nil, nil, nil
	}
	pem, err := os.ReadFile(c.config.CA)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("%s: no certificate in it", c.config.CA)
	}
	return pool, info, nil
}

// pair reads the client's certificate, anew for each connection.
func (c *client) pair(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.config.Cert, c.config.Key)
	if err != nil {
		return nil, &pairError{c.config.Cert, c.config.Key, err}
	}
	return &pair, nil
}

// pairError is a certificate that can't be shown.
type pairError struct {
	cert, key string
	err       error
}

func (e *pairError) Error() string {
	return fmt.Sprintf("certificate %s with key %s: %v", e.cert, e.key, e.err)
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http.CloseIdleConnections()
}

// outcome is what has become of one request.
type outcome struct {
	err      error         // nil: the receiver has it
	refused  bool          // and never will (4xx)
	large    bool          // it is too large (413)
	odd      bool          // an error of the receiver that may be for ever (5xx but for 502, 503, 504)
	after    time.Duration // that it asks to be left alone
	answer   []byte
	rejected int64 // records of it that the receiver has not taken
}

// reject reads from the answer what the receiver has not taken.
func (o *outcome) reject(f format) { o.rejected = f.rejected(o.answer) }

// post sends a body. Neither the URL nor what the receiver says is in the error: both may hold secrets.
func (c *client) post(ctx context.Context, within time.Duration, records, contentType string, body []byte) (o outcome) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := c.request(ctx, records, contentType, body)
	if err != nil {
		return outcome{err: err}
	}
	h, err := c.get()
	if err != nil {
		return outcome{err: err}
	}
	resp, err := h.RoundTrip(req)
	if err != nil {
		return outcome{err: sayable(err)}
	}
	defer resp.Body.Close()
	defer context.AfterFunc(ctx, func() { resp.Body.Close() })() // after 101 it is the connection, which ctx bounds no more
	if o.answer, err = io.ReadAll(io.LimitReader(resp.Body, mostAnswer)); err != nil && resp.StatusCode/100 == 2 {
		return outcome{err: fmt.Errorf("its answer isn't whole: %w", err)}
	}
	o.judge(resp)
	return o
}

// errStrange: the error that there is has words of the receiver in it.
var errStrange = errors.New("what the receiver answers is no HTTP, or not what was asked for")

// sayable returns an error of a request as far as its words are those of this machine.
func sayable(err error) error {
	for _, known := range []error{context.DeadlineExceeded, context.Canceled, os.ErrDeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, known) {
			return err
		}
	}
	switch {
	case is[*net.OpError](err), is[*net.DNSError](err), is[*tls.CertificateVerificationError](err), is[tls.RecordHeaderError](err), is[tls.AlertError](err), is[*pairError](err):
		return err
	}
	return errStrange
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// request makes one, with what the files say now.
func (c *client) request(ctx context.Context, records, contentType string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.config.URL, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL can't be used")
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("User-Agent", c.config.Agent)
	req.Header.Set(headerRecords, records)
	token, err := readSecret(c.config.Token, 1)
	if err != nil {
		return nil, err
	}
	if token != nil {
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	secret, err := readSecret(c.config.Secret, leastSecret)
	if err != nil {
		return nil, err
	}
	if secret != nil {
		at := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(at + "."))
		mac.Write(body)
		req.Header.Set(headerTime, at)
		req.Header.Set(headerSignature, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return req, nil
}

// judge reads status and headers.
func (o *outcome) judge(resp *http.Response) {
	status := resp.StatusCode
	if status/100 == 2 {
		return
	}
	o.err = fmt.Errorf("the receiver answers %d", status)
	if text := http.StatusText(status); text != "" {
		o.err = fmt.Errorf("the receiver answers %d %s", status, text)
	}
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
	case status/100 == 4:
		o.refused = true
		o.large = status == http.StatusRequestEntityTooLarge
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
	case status/100 == 5:
		o.odd = true
	}
	o.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
}

// retryAfter reads the header of that name (RFC 9110, 10.2.3): seconds or a date. 0: it says nothing of use.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, mostAsked)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), mostAsked)
}
