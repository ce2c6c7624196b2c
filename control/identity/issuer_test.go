package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

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
