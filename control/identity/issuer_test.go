package identity

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/postern-link/postern/control"
)

// provider is an OpenID Connect issuer of a test: HTTPS, discovery, keys that change.
type provider struct {
	*httptest.Server
	issuer  string
	fetches atomic.Int64 // of keys
	away    atomic.Bool  // answers 503

	mu   sync.Mutex
	keys []jose.JSONWebKey // public
	meta map[string]any

	asked func() // called while the keys are on their way; nil: nothing
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{Server: httptest.NewUnstartedServer(nil)}
	p.Config.Handler = http.HandlerFunc(p.serve)
	p.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that shall fail
	p.StartTLS()
	p.issuer = p.URL
	t.Cleanup(p.Close)
	return p
}

func (p *provider) serve(w http.ResponseWriter, q *http.Request) {
	if p.away.Load() {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(q.URL.Path, "/.well-known/openid-configuration"):
		meta := map[string]any{"issuer": p.issuer, "jwks_uri": p.issuer + "/keys"}
		maps.Copy(meta, p.meta)
		_ = json.NewEncoder(w).Encode(meta)
	case strings.HasSuffix(q.URL.Path, "/keys"):
		p.fetches.Add(1)
		if p.asked != nil {
			p.asked()
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: p.keys})
	default:
		http.NotFound(w, q)
	}
}

// tokenKey is a key of an issuer.
type tokenKey struct {
	kid     string
	alg     jose.SignatureAlgorithm
	private crypto.Signer
}

func rsaKey(t *testing.T, kid string, bits int) tokenKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return tokenKey{kid, jose.RS256, key}
}

func ecKey(t *testing.T, kid string) tokenKey { return tokenKey{kid, jose.ES256, newKey(t)} }

// publish makes these the keys of the issuer.
func (p *provider) publish(keys ...tokenKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = nil
	for _, k := range keys {
		p.keys = append(p.keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.kid, Use: "sig"})
	}
}

// mint signs claims.
func (k tokenKey) mint(t testing.TB, c map[string]any) string {
	t.Helper()
	return seal(t, jose.SigningKey{Algorithm: k.alg, Key: jose.JSONWebKey{Key: k.private, KeyID: k.kid}}, c)
}

func seal(t testing.TB, key jose.SigningKey, c map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// claims returns what a good token says, with changes; a nil takes a claim out.
func (p *provider) claims(now time.Time, change map[string]any) map[string]any {
	c := map[string]any{"iss": p.issuer, "aud": "api://postern", "sub": "alice", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

// file returns an identities file that trusts the issuer.
func (p *provider) file(t *testing.T, identities string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})))
	return put(t, who(identities, `"issuers": [{"url": "`+p.issuer+`", "audiences": ["api://other", "api://postern"], "ca": "`+path+`"}]`))
}

func (p *provider) subject(name string) string {
	return `{"name": "` + name + `", "tenant": "contoso", "roles": [{"subscription": "` + contosoS + `", "role": "reader"}], "oidc": [{"issuer": "` + p.issuer + `", "subject": "` + name + `"}]}`
}

func TestIssuer(t *testing.T) {
	p := newProvider(t)
	good, small := rsaKey(t, "rsa", 2048), rsaKey(t, "small", 1024)
	ec, foreign := ecKey(t, "ec"), ecKey(t, "ec")
	_, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := tokenKey{"ed", jose.EdDSA, edPrivate}
	p.publish(good, small, ec, ed)
	p.mu.Lock()
	p.keys = append(p.keys, jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "shared", Use: "sig"},
		jose.JSONWebKey{Key: newKey(t).Public(), KeyID: "enc", Use: "enc"})
	p.mu.Unlock()
	c := newClock()
	d := start(t, p.file(t, p.subject("alice")), Options{Clock: c.now})
	now := c.now()
	claims := func(change map[string]any) map[string]any { return p.claims(now, change) }
	der := seal(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: p.Certificate().RawSubjectPublicKeyInfo, KeyID: "rsa"}}, claims(nil))
	plain := good.mint(t, claims(nil))
	parts := strings.Split(plain, ".")
	for _, tc := range []struct {
		name, token string
		good        bool
	}{
		{"RS256", plain, true},
		{"PS256 with the same key", tokenKey{"rsa", jose.PS256, good.private}.mint(t, claims(nil)), true},
		{"ES256", ec.mint(t, claims(nil)), true},
		{"EdDSA", ed.mint(t, claims(nil)), true},
		{"several audiences", good.mint(t, claims(map[string]any{"aud": []string{"x", "api://postern"}})), true},
		{"within the skew after the end", good.mint(t, claims(map[string]any{"exp": now.Add(-30 * time.Second).Unix()})), true},
		{"after the end", good.mint(t, claims(map[string]any{"exp": now.Add(-2 * time.Minute).Unix()})), false},
		{"without an end", good.mint(t, claims(map[string]any{"exp": nil})), false},
		{"not yet", good.mint(t, claims(map[string]any{"nbf": now.Add(time.Hour).Unix()})), false},
		{"another audience", good.mint(t, claims(map[string]any{"aud": "api://evil"})), false},
		{"no audience", good.mint(t, claims(map[string]any{"aud": nil})), false},
		{"part of an audience", good.mint(t, claims(map[string]any{"aud": "api://post"})), false},
		{"another issuer", good.mint(t, claims(map[string]any{"iss": "https://evil.example"})), false},
		{"issuer with a slash", good.mint(t, claims(map[string]any{"iss": p.issuer + "/"})), false},
		{"another subject", good.mint(t, claims(map[string]any{"sub": "bob"})), false},
		{"subject in a list", good.mint(t, claims(map[string]any{"sub": []string{"alice"}})), false},
		{"another key of the same ID", foreign.mint(t, claims(nil)), false},
		{"a key too small", small.mint(t, claims(nil)), false},
		{"a key for encryption", tokenKey{"enc", jose.ES256, newKey(t)}.mint(t, claims(nil)), false},
		{"HS256 with the public key", der, false},
		{"HS256 with a published secret", seal(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "shared"}}, claims(nil)), false},
		{"none", "eyJhbGciOiJub25lIn0." + parts[1] + ".", false},
		{"other claims", parts[0] + "." + strings.Split(good.mint(t, claims(map[string]any{"sub": "alice", "x": 1})), ".")[1] + "." + parts[2], false},
		{"JSON form", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := d.Authenticate(t.Context(), Credential{Bearer: tc.token})
			if tc.good && (err != nil || got.Name != "alice" || got.TenantID != contosoID || len(got.Grants) != 1) || !tc.good && err != ErrUnauthenticated {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestIssuerRotates: a new key is fetched when its first token comes, but not as often as tokens with
// unknown keys come; a key that was taken back ends with the next fetch.
func TestIssuerRotates(t *testing.T) {
	p := newProvider(t)
	one, two := ecKey(t, "1"), ecKey(t, "2")
	p.publish(one)
	c := newClock()
	d := start(t, p.file(t, p.subject("alice")), Options{Clock: c.now})
	try := func(k tokenKey) error {
		_, err := d.Authenticate(t.Context(), Credential{Bearer: k.mint(t, p.claims(c.now(), nil))})
		return err
	}
	if err := try(one); err != nil {
		t.Fatal(err)
	}
	p.publish(two)
	if err := try(two); err != ErrUnauthenticated {
		t.Errorf("the second key at once: %v", err)
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("an unknown key ID led to fetch %d right after the first", n)
	}
	c.add(retryAfter)
	if err := try(two); err != nil {
		t.Errorf("the second key: %v", err)
	}
	if err := try(one); err != ErrUnauthenticated {
		t.Errorf("a key that was taken back: %v", err)
	}
	// An old set is fetched again in the background.
	c.add(refreshAge)
	if err := try(two); err != nil {
		t.Error(err)
	}
	d.work.Wait()
	if n := p.fetches.Load(); n != 3 {
		t.Errorf("%d fetches, want 3: the first, for the second key, and for age", n)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := try(two); err != nil {
		t.Errorf("with the keys at hand, and closed: %v", err)
	}
	c.add(keysLast)
	if err := try(two); err != ErrUnavailable {
		t.Errorf("keys past their time, and closed: %v", err)
	}
}

// TestIssuerAway: an issuer that can't be reached is told from a wrong token, doesn't stop the start, and is
// asked once for many callers. Keys that are there go on working without it.
func TestIssuerAway(t *testing.T) {
	p := newProvider(t)
	key := ecKey(t, "1")
	p.publish(key)
	p.away.Store(true)
	c := newClock()
	d := start(t, p.file(t, p.subject("alice")), Options{Clock: c.now})
	try := func() error {
		_, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, p.claims(c.now(), nil))})
		return err
	}
	if err := try(); err != ErrUnavailable {
		t.Errorf("while it is away: %v", err)
	}
	p.away.Store(false)
	if err := try(); err != ErrUnavailable {
		t.Errorf("right after it came back: %v", err)
	}
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("asked again at once: %d", n)
	}
	c.add(retryAfter)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := try(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("20 callers led to %d fetches", n)
	}
	p.away.Store(true)
	c.add(keysLast - time.Minute)
	if err := try(); err != nil {
		t.Errorf("with keys of less than a day: %v", err)
	}
	c.add(time.Hour)
	if err := try(); err != ErrUnavailable {
		t.Errorf("with keys of more than a day: %v", err)
	}
}

// TestIssuerSilent: one that takes the connection and says nothing holds a caller no longer than a fetch
// may take, nor than the caller waits; the next callers don't wait at all.
func TestIssuerSilent(t *testing.T) {
	path := put(t, who(`{"name": "alice", "tenant": "contoso", "oidc": [{"issuer": "https://i.example", "subject": "alice"}]}`,
		`"issuers": [{"url": "https://i.example", "audiences": ["a"]}]`))
	token := ecKey(t, "1").mint(t, map[string]any{"iss": "https://i.example", "aud": "a", "sub": "alice", "exp": int64(1) << 33})
	synctest.Test(t, func(t *testing.T) {
		d := start(t, path, Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			return near, nil
		}})
		for _, tc := range []struct {
			name        string
			waits, took time.Duration
		}{
			{"a caller that gives up", time.Second, time.Second},
			{"a caller that waits", time.Minute, fetchTime - time.Second}, // for what the first one began
			{"the next caller", time.Minute, 0},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), tc.waits)
			began := time.Now()
			if _, err := d.Authenticate(ctx, Credential{Bearer: token}); err != ErrUnavailable || time.Since(began) != tc.took {
				t.Errorf("%s: %v after %v, want %v", tc.name, err, time.Since(began), tc.took)
			}
			cancel()
		}
	})
}

func TestIssuerLies(t *testing.T) {
	key := ecKey(t, "1")
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.private.Public(), KeyID: "1"}}})
	}))
	defer open.Close()
	for name, meta := range map[string]map[string]any{
		"another issuer":      {"issuer": "https://evil.example"},
		"template of a cloud": {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
		"keys over http":      {"jwks_uri": open.URL},
		"no keys":             {"jwks_uri": ""},
		"endless metadata":    {"x": strings.Repeat("x", 2*answerBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.publish(key)
			p.meta = meta
			d := start(t, p.file(t, p.subject("alice")), Options{})
			if _, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, p.claims(time.Now(), nil))}); err != ErrUnavailable {
				t.Error(err)
			}
		})
	}
	t.Run("certificate of somebody else", func(t *testing.T) {
		p := newProvider(t)
		p.publish(key)
		path := put(t, who(p.subject("alice"), `"issuers": [{"url": "`+p.issuer+`", "audiences": ["api://postern"], "ca": "`+newAuthority(t, "x").file(t)+`"}]`))
		d := start(t, path, Options{})
		if _, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, p.claims(time.Now(), nil))}); err != ErrUnavailable {
			t.Error(err)
		}
	})
	t.Run("redirect", func(t *testing.T) {
		p := newProvider(t)
		p.publish(key)
		p.Config.Handler = http.RedirectHandler("https://127.0.0.1:1/", http.StatusFound)
		d := start(t, p.file(t, p.subject("alice")), Options{})
		if _, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, p.claims(time.Now(), nil))}); err != ErrUnavailable {
			t.Error(err)
		}
	})
}

// TestRemovedIssuerAndIdentity: what left the file has no access, with tokens that were good before.
func TestRemovedIssuerAndIdentity(t *testing.T) {
	p := newProvider(t)
	key := ecKey(t, "1")
	p.publish(key)
	path := p.file(t, p.subject("alice")+","+p.subject("bob"))
	d := start(t, path, Options{})
	alice := Credential{Bearer: key.mint(t, p.claims(time.Now(), nil))}
	bob := Credential{Bearer: key.mint(t, p.claims(time.Now(), map[string]any{"sub": "bob"}))}
	if _, err := d.Authenticate(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	if _, err := Revoke(t.Context(), path, "alice", ""); err != nil {
		t.Fatal(err)
	}
	if err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Authenticate(t.Context(), alice); err != ErrUnauthenticated {
		t.Errorf("alice: %v", err)
	}
	if _, err := d.Authenticate(t.Context(), bob); err != nil {
		t.Errorf("bob: %v", err)
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("a reload made the keys be fetched again: %d", n)
	}
	write(t, path, who(""))
	if err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Authenticate(t.Context(), bob); err != ErrUnauthenticated {
		t.Errorf("bob without the issuer: %v", err)
	}
}

// TestFileChangesMeanwhile: while the keys are fetched the file may come to say something else, which counts.
func TestFileChangesMeanwhile(t *testing.T) {
	for name, change := range map[string]func(text string) string{
		"nothing":      func(text string) string { return text },
		"issuer gone":  func(string) string { return who("") },
		"identity":     func(text string) string { return strings.Replace(text, `"subject": "alice"`, `"subject": "bob"`, 1) },
		"its audience": func(text string) string { return strings.Replace(text, "api://postern", "api://x", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			key := ecKey(t, "1")
			p.publish(key)
			path := p.file(t, p.subject("alice"))
			d := start(t, path, Options{})
			p.asked = func() {
				text, err := os.ReadFile(path)
				if err == nil {
					err = os.WriteFile(path, []byte(change(string(text))), 0o600)
				}
				if err := errors.Join(err, d.Reload()); err != nil {
					t.Error(err)
				}
			}
			_, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, p.claims(time.Now(), nil))})
			if (err == nil) != (name == "nothing") || err != nil && err != ErrUnauthenticated {
				t.Error(err)
			}
		})
	}
}

// TestEntra runs tokens of both versions, as Entra ID writes them, through issuers with its names.
func TestEntra(t *testing.T) {
	const other = "00000000-0000-4000-8000-0000000000ff"
	ca := newAuthority(t, "corp")
	cert := ca.leaf(t, "CN=entra", func(c *x509.Certificate) { c.DNSNames = []string{"login.microsoftonline.com", "sts.windows.net"} })
	key := rsaKey(t, "entra", 2048)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		issuer := "https://" + q.Host + strings.TrimSuffix(q.URL.Path, "/.well-known/openid-configuration")
		if strings.HasPrefix(q.Host, "sts.") {
			issuer += "/"
		}
		if strings.HasSuffix(q.URL.Path, "/keys") {
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.private.Public(), KeyID: "entra", Use: "sig"}}})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": "https://login.microsoftonline.com/common/discovery/keys"})
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	v2 := "https://login.microsoftonline.com/" + contosoID + "/v2.0"
	v1 := "https://sts.windows.net/" + contosoID + "/"
	rule := func(name, issuer, claims string) string {
		return `{"name": "` + name + `", "tenant": "contoso", "roles": [{"subscription": "` + contosoS + `", "role": "network"}], "oidc": [{"issuer": "` + issuer + `", "claims": {` + claims + `}}]}`
	}
	path := put(t, who(strings.Join([]string{
		rule("alice", v2, `"oid": "alice-oid"`), rule("app", v2, `"appid": "app-id"`), rule("app1", v1, `"azp": "app-id"`),
		rule("admins", v2, `"groups": "admin-group"`), rule("deployers", v2, `"roles": "Deploy"`), rule("mail", v2, `"email": "root@contoso.example"`),
	}, ","), `"issuers": [{"url": "https://login.microsoftonline.com/{tenantid}/v2.0", "tenants": ["`+contosoID+`", "`+other+`"], "audiences": ["api://postern"], "ca": "`+ca.file(t)+`"},
		{"url": "`+v1+`", "audiences": ["api://postern"], "ca": "`+ca.file(t)+`"}]`))
	d := start(t, path, Options{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
	}})
	for _, tc := range []struct {
		name, issuer string
		claims       map[string]any
		want         string
		roles        int
	}{
		{"user of version 2", v2, map[string]any{"oid": "alice-oid", "tid": contosoID, "preferred_username": "alice@contoso.example"}, "alice", 1},
		{"user of a group", v2, map[string]any{"oid": "x", "tid": contosoID, "preferred_username": "bob@contoso.example", "groups": []string{"g", "admin-group"}}, "admins/bob@contoso.example", 1},
		{"user of two groups", v2, map[string]any{"oid": "x", "tid": contosoID, "upn": "bob@contoso.example", "groups": []string{"admin-group"}, "roles": []string{"Deploy"}}, "admins/bob@contoso.example", 2},
		{"user who calls himself an identity", v2, map[string]any{"tid": contosoID, "preferred_username": "alice/\n", "groups": []string{"admin-group"}}, "admins/alice", 1},
		{"more groups than a token holds", v2, map[string]any{"tid": contosoID, "_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://127.0.0.1:1/"}}}, "", 0},
		{"application of version 2", v2, map[string]any{"azp": "app-id", "tid": contosoID}, "app/app-id", 1},
		{"application of version 1", v1, map[string]any{"appid": "app-id", "tid": contosoID}, "app1/app-id", 1},
		{"another application", v1, map[string]any{"appid": "x", "tid": contosoID}, "", 0},
		{"another tenant's ID", v2, map[string]any{"oid": "alice-oid", "tid": other}, "", 0},
		{"no tenant's ID", v2, map[string]any{"oid": "alice-oid"}, "", 0},
		{"another tenant that is trusted", "https://login.microsoftonline.com/" + other + "/v2.0", map[string]any{"oid": "alice-oid", "tid": other}, "", 0},
		{"a tenant that isn't trusted", "https://login.microsoftonline.com/" + fabrikamID + "/v2.0", map[string]any{"oid": "alice-oid", "tid": fabrikamID}, "", 0},
		{"a mail address that nobody has checked", v2, map[string]any{"tid": contosoID, "email": "root@contoso.example"}, "", 0},
		{"a mail address that was checked", v2, map[string]any{"tid": contosoID, "email": "root@contoso.example", "email_verified": true}, "mail/root@contoso.example", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := map[string]any{"iss": tc.issuer, "aud": "api://postern", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()}
			maps.Copy(c, tc.claims)
			got, err := d.Authenticate(t.Context(), Credential{Bearer: key.mint(t, c)})
			if got.Name != tc.want || (err == nil) != (tc.want != "") || len(got.Grants) != tc.roles {
				t.Errorf("%+v, %v, want %q with %d roles", got, err, tc.want, tc.roles)
			}
			if err != nil && !errors.Is(err, ErrUnauthenticated) {
				t.Error(err)
			}
		})
	}
}

// TestMerge: roles of the caller's own tenant add up, those of identities of others don't.
func TestMerge(t *testing.T) {
	tenant := func(id string) control.Tenant { return control.Tenant{ID: id} }
	grants := func(subs ...string) (all []control.Grant) {
		for _, s := range subs {
			all = append(all, control.Grant{Subscription: s, Role: control.Reader})
		}
		return all
	}
	a, b, foreign := &identity{tenant: tenant("1"), grants: grants("s1")}, &identity{tenant: tenant("1"), grants: grants("s2")}, &identity{tenant: tenant("2"), grants: grants("s3")}
	got, ok := merge([]match{{a, "a"}, {foreign, "f"}, {b, "b"}})
	if want := grants("s1", "s2"); !ok || got.Name != "a" || !slices.Equal(got.Grants, want) {
		t.Errorf("%+v, want %v", got, want)
	}
	if got := fmt.Sprint(a.grants); got != fmt.Sprint(grants("s1")) {
		t.Errorf("merging changed the identity: %s", got)
	}
	if _, ok := merge(nil); ok {
		t.Error("nobody is somebody")
	}
}
