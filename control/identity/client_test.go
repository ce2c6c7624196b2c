package identity

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/postern-link/postern/control"
)

// clients returns a file with one client, and its secrets; the second one ends in half an hour.
func clients(t testing.TB, c *clock) (path string, secrets [2]string) {
	t.Helper()
	secrets = [2]string{newSecret(secretPrefix), newSecret(secretPrefix)}
	return put(t, who(`{"name": "tf", "tenant": "contoso", "roles": [{"subscription": "*", "role": "owner"}], "client": {"id": "`+strings.ToUpper(clientID)+`",
		"secrets": [{"sha256": "`+sumOf(secrets[0])+`"}, {"sha256": "`+sumOf(secrets[1])+`", "expires": "`+c.now().Add(30*time.Minute).UTC().Format(time.RFC3339)+`"}]}}`)), secrets
}

func issue(t testing.TB, d *Directory, secret string) string {
	t.Helper()
	token, _, err := d.IssueToken(t.Context(), clientID, secret, "https://host/", "https://host/adfs")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// payload returns what a client sees in a token without checking it, as Terraform's SDK does.
func payload(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIssueToken(t *testing.T) {
	c := newClock()
	path, secrets := clients(t, c)
	d := start(t, path, Options{Clock: c.now})
	token, life, err := d.IssueToken(t.Context(), strings.ToUpper(clientID), secrets[0], "https://host/", "https://host/adfs")
	if err != nil || life != 3600 {
		t.Fatalf("%d, %v", life, err)
	}
	says := payload(t, token)
	for name, want := range map[string]any{"iss": "https://host/adfs", "aud": "https://host/", "tid": contosoID, "appid": clientID,
		"oid": objectID(clientID), "sub": objectID(clientID), "exp": float64(c.now().Add(time.Hour).Unix())} {
		if says[name] != want {
			t.Errorf("%s is %v, want %v", name, says[name], want)
		}
	}
	if oid, _ := says["oid"].(string); !guidForm.MatchString(oid) || oid == clientID {
		t.Errorf("oid %v", says["oid"])
	}
	if strings.Contains(token, secrets[0]) || says["pcs"] != sumOf(secrets[0])[:16] {
		t.Errorf("the token says of its secret: %v", says["pcs"])
	}
	got, err := d.Authenticate(t.Context(), Credential{Bearer: token, From: "192.0.2.1"})
	if err != nil || got.Name != "tf" || got.Tenant != "contoso" || got.From != "192.0.2.1" || len(got.Grants) != 2 || got.Grants[0].Role != control.Owner {
		t.Errorf("%+v, %v", got, err)
	}
	if again := issue(t, d, secrets[0]); again == token {
		t.Error("two tokens are the same")
	}
	if _, life, err := d.IssueToken(t.Context(), clientID, secrets[1], "", ""); err != nil || life < 1790 || life > 1800 {
		t.Errorf("with a secret that ends in half an hour: %d s, %v", life, err)
	}
	if _, _, err := d.IssueToken(t.Context(), clientID, secrets[0], strings.Repeat("a", maxURL+1), ""); err != ErrUnauthenticated {
		t.Errorf("a very long audience: %v", err)
	}
	c.add(time.Hour - time.Second)
	if _, err := d.Authenticate(t.Context(), Credential{Bearer: token}); err != nil {
		t.Errorf("before its end: %v", err)
	}
	if _, _, err := d.IssueToken(t.Context(), clientID, secrets[1], "", ""); err != ErrUnauthenticated {
		t.Errorf("with a secret past its end: %v", err)
	}
	c.add(skew + time.Second)
	if _, err := d.Authenticate(t.Context(), Credential{Bearer: token}); err != ErrUnauthenticated {
		t.Errorf("after its end: %v", err)
	}
}

// TestIssuedTokenEndsWithTheFile: a token is worth what the file says now.
func TestIssuedTokenEndsWithTheFile(t *testing.T) {
	c := newClock()
	path, secrets := clients(t, c)
	d := start(t, path, Options{Clock: c.now})
	first, second := issue(t, d, secrets[0]), issue(t, d, secrets[1])
	try := func(token string) error {
		t.Helper()
		if err := d.Reload(); err != nil {
			t.Fatal(err)
		}
		_, err := d.Authenticate(t.Context(), Credential{Bearer: token})
		return err
	}
	if err := errors.Join(try(first), try(second)); err != nil {
		t.Fatal(err)
	}
	if gone, err := Revoke(t.Context(), path, "tf", sumOf(secrets[1])[:16]); gone || err != nil {
		t.Fatal(gone, err)
	}
	if err := try(second); err != ErrUnauthenticated {
		t.Errorf("of a secret that was taken back: %v", err)
	}
	if err := try(first); err != nil {
		t.Errorf("of the other secret: %v", err)
	}
	if gone, err := Revoke(t.Context(), path, "tf", ""); !gone || err != nil {
		t.Fatal(gone, err)
	}
	if err := try(first); err != ErrUnauthenticated {
		t.Errorf("of an identity that was taken out: %v", err)
	}
	// The same client ID for somebody else.
	write(t, path, who(`{"name": "x", "tenant": "fabrikam", "client": {"id": "`+clientID+`", "secrets": [{"sha256": "`+sumOf(secrets[0])+`"}]}}`))
	if err := try(first); err != ErrUnauthenticated {
		t.Errorf("of a client that is another tenant's now: %v", err)
	}
}

func TestForgedTokens(t *testing.T) {
	path, secrets := clients(t, newClock())
	d := start(t, path, Options{})
	token := issue(t, d, secrets[0])
	key, err := d.key.current(false)
	if err != nil {
		t.Fatal(err)
	}
	says := payload(t, token)
	with := func(change map[string]any) map[string]any {
		c := payload(t, token)
		for k, v := range change {
			c[k] = v
		}
		return c
	}
	ours := func(c map[string]any) string {
		return seal(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.private, KeyID: key.kid}}, c)
	}
	if _, err := d.Authenticate(t.Context(), Credential{Bearer: ours(says)}); err != nil {
		t.Fatalf("the test makes no good token: %v", err)
	}
	x, err := key.private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	for name, forged := range map[string]string{
		"another key":             seal(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: newKey(t), KeyID: key.kid}}, says),
		"a secret from the key":   seal(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: x[:32], KeyID: key.kid}}, says),
		"none":                    base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"`+key.kid+`"}`)) + "." + parts[1] + ".",
		"no signature":            parts[0] + "." + parts[1] + ".",
		"its own key":             base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"`+key.kid+`","jwk":{}}`)) + "." + parts[1] + "." + parts[2],
		"another tenant":          ours(with(map[string]any{"tid": fabrikamID})),
		"another client":          ours(with(map[string]any{"appid": contosoID})),
		"another secret":          ours(with(map[string]any{"pcs": "0000000000000000"})),
		"no end":                  ours(with(map[string]any{"exp": nil})),
		"not yet":                 ours(with(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()})),
		"no object":               ours(nil),
		"another key of our kind": seal(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: newKey(t), KeyID: keyPrefix + "0000000000000000"}}, says),
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := d.Authenticate(t.Context(), Credential{Bearer: forged}); err != ErrUnauthenticated {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}

// TestKeyFile: nodes that share it take each other's tokens, and it is made once, for its owner alone.
func TestKeyFile(t *testing.T) {
	path, secrets := clients(t, newClock())
	keyPath := filepath.Join(t.TempDir(), "key.pem")
	var nodes []*Directory
	for range 4 {
		nodes = append(nodes, start(t, path, Options{KeyFile: keyPath}))
	}
	tokens := make([]string, len(nodes))
	var all sync.WaitGroup
	for i, d := range nodes {
		all.Go(func() { tokens[i], _, _ = d.IssueToken(t.Context(), clientID, secrets[0], "", "") })
	}
	all.Wait()
	for i, token := range tokens {
		for j, d := range nodes {
			if _, err := d.Authenticate(t.Context(), Credential{Bearer: token}); err != nil {
				t.Errorf("the token of node %d at node %d: %v", i, j, err)
			}
		}
	}
	if info, err := os.Stat(keyPath); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(keyPath)); err != nil || len(left) != 1 {
		t.Errorf("beside the key: %v, %v", left, err)
	}
	restarted := start(t, path, Options{KeyFile: keyPath})
	if _, err := restarted.Authenticate(t.Context(), Credential{Bearer: tokens[0]}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := os.Remove(keyPath); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].Authenticate(t.Context(), Credential{Bearer: tokens[0]}); err != ErrUnauthenticated {
		t.Errorf("after the key was taken away: %v", err)
	}
	if _, err := os.Stat(keyPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("checking a token made a key: %v", err)
	}
	next := issue(t, nodes[1], secrets[0])
	if _, err := nodes[2].Authenticate(t.Context(), Credential{Bearer: next}); err != nil {
		t.Errorf("with the next key: %v", err)
	}
	if _, err := nodes[2].Authenticate(t.Context(), Credential{Bearer: tokens[0]}); err != ErrUnauthenticated {
		t.Errorf("the old token after the next key: %v", err)
	}
}

func TestKeyFileRefused(t *testing.T) {
	path, secrets := clients(t, newClock())
	good := filepath.Join(t.TempDir(), "key.pem")
	_ = issue(t, start(t, path, Options{KeyFile: good}), secrets[0])
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, text string
		mode       fs.FileMode
	}{
		{"readable by all", string(text), 0o644},
		{"empty", "", 0o600},
		{"no key", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", 0o600},
		{"a certificate", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", 0o600},
		{"large", strings.Repeat("x", 1<<20), 0o600},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "key.pem")
			write(t, bad, tc.text)
			if err := os.Chmod(bad, tc.mode); err != nil {
				t.Fatal(err)
			}
			var j journal
			d := start(t, path, Options{KeyFile: bad, Log: j.log()})
			if _, _, err := d.IssueToken(t.Context(), clientID, secrets[0], "", ""); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if b, err := os.ReadFile(bad); err != nil || string(b) != tc.text {
				t.Errorf("the file was replaced: %v", err)
			}
			if !strings.Contains(j.String(), bad) || strings.Contains(j.String(), "BEGIN") {
				t.Errorf("the log:\n%s", j.String())
			}
		})
	}
	if key, err := parseKey(text); err != nil || key.private.Curve != elliptic.P256() {
		t.Errorf("the key that was made: %v", err)
	}
}
