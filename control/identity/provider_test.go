package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
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
