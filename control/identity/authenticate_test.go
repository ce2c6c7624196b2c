package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-link/postern/control"
)

func TestToken(t *testing.T) {
	token, old, other := newSecret(tokenPrefix), newSecret(tokenPrefix), newSecret(tokenPrefix)
	c := newClock()
	path := put(t, who(`{"name": "ci", "tenant": "contoso", "roles": [{"subscription": "*", "role": "provider"}, {"subscription": "`+fabrikamS+`", "role": "approver"}],
		"tokens": [{"sha256": "`+sumOf(token)+`"}, {"sha256": "`+strings.ToUpper(sumOf(old))+`", "expires": "`+c.now().Add(time.Hour).Format(time.RFC3339)+`"}]},
		{"name": "root", "tenant": "operator", "roles": [{"subscription": "*", "role": "owner"}], "tokens": [{"sha256": "`+sumOf(other)+`"}]}`))
	reg := prometheus.NewPedanticRegistry()
	d := start(t, path, Options{Clock: c.now, Registerer: reg})
	got, err := d.Authenticate(t.Context(), Credential{Bearer: token, From: "192.0.2.1"})
	want := control.Caller{Name: "ci", From: "192.0.2.1", Tenant: "contoso", TenantID: contosoID}
	grants := []control.Grant{{Subscription: contosoS, Role: control.Provider}, {Subscription: contosoS2, Role: control.Provider},
		{Subscription: fabrikamS, Role: control.Approver}}
	if err != nil || got.Name != want.Name || got.From != want.From || got.Tenant != want.Tenant || got.TenantID != want.TenantID || got.Operator ||
		!slices.Equal(got.Grants, grants) {
		t.Errorf("ci is %+v, %v", got, err)
	}
	if got, err := d.Authenticate(t.Context(), Credential{Bearer: other}); err != nil || !got.Operator || got.Tenant != "" || got.TenantID != operatorID {
		t.Errorf("root is %+v, %v", got, err)
	}
	if _, err := d.Authenticate(t.Context(), Credential{Bearer: old}); err != nil {
		t.Errorf("a token before its end: %v", err)
	}
	c.add(time.Hour + time.Second)
	if _, err := d.Authenticate(t.Context(), Credential{Bearer: old}); err != ErrUnauthenticated {
		t.Errorf("a token after its end: %v", err)
	}
	if n := testutil.ToFloat64(d.metrics.signIns.WithLabelValues("token", "accepted")); n != 3 {
		t.Errorf("%v sign-ins counted", n)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

// TestRefusals is A01: whatever is wrong, the error and the time are the same.
func TestRefusals(t *testing.T) {
	token, secret := newSecret(tokenPrefix), newSecret(secretPrefix)
	path := put(t, who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "`+sumOf(token)+`"}, {"sha256": "`+sumOf("hunter2")+`"}, {"sha256": "`+sumOf("ptk_hunter2")+`"}],
		"client": {"id": "`+clientID+`", "secrets": [{"sha256": "`+sumOf(secret)+`"}, {"sha256": "`+sumOf("hunter2")+`"}]}}`,
		`"issuers": [{"url": "https://i.example", "audiences": ["a"]}]`))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := &signingKey{private: key, kid: "k"}
	jwt := func(iss string) string {
		s, err := foreign.sign(issued{Issuer: iss, App: clientID, Expires: time.Now().Add(time.Hour).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	bearers := map[string]string{
		"none": "", "malformed": "x", "prefix only": tokenPrefix, "short": token[:len(token)-1], "long": token + "A",
		"other alphabet": tokenPrefix + strings.Repeat("+", 43), "wrong": newSecret(tokenPrefix), "last letter": token[:len(token)-4] + "AAAA",
		"digest as a token": tokenPrefix + sumOf(token)[:43], "a password with its digest in the file": "hunter2", "one with the prefix": "ptk_hunter2",
		"a client's secret": secret, "dots": "..", "not base64": "a.b.c", "huge": strings.Repeat("a", 1<<20) + ".b.c",
		"no issuer of ours": jwt("https://evil.example"), "no issuer": jwt(""), "nul": "\x00", "with the word": "Bearer " + token,
	}
	for name, bearer := range bearers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t, path, Options{})
				began := time.Now()
				c, err := d.Authenticate(t.Context(), Credential{Bearer: bearer})
				if err != ErrUnauthenticated || c.Name != "" || len(c.Grants) > 0 {
					t.Errorf("%+v, %v", c, err)
				}
				if took := time.Since(began); took != refusalTime {
					t.Errorf("it took %v, each refusal takes %v", took, refusalTime)
				}
			})
		})
	}
	for _, tc := range []struct{ name, client, secret string }{
		{"no client", "", ""}, {"unknown client", contosoID, secret}, {"wrong secret", clientID, newSecret(secretPrefix)},
		{"no secret", clientID, ""}, {"a password", clientID, "hunter2"}, {"a token as a secret", clientID, token},
	} {
		t.Run("client/"+tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t, path, Options{})
				began := time.Now()
				token, life, err := d.IssueToken(t.Context(), tc.client, tc.secret, "https://host/", "https://host/adfs")
				if err != ErrUnauthenticated || token != "" || life != 0 {
					t.Errorf("%q, %d, %v", token, life, err)
				}
				if took := time.Since(began); took != refusalTime {
					t.Errorf("it took %v, each refusal takes %v", took, refusalTime)
				}
			})
		})
	}
	if _, err := os.Stat(path + ".key"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("refused clients made a key: %v", err)
	}
}

// TestRefusalEndsWithTheRequest: a caller that has gone isn't waited for.
func TestRefusalEndsWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, put(t, who("")), Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if _, err := d.Authenticate(ctx, Credential{Bearer: "x"}); err != ErrUnauthenticated || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestBearerDecides: a wrong token isn't made good by something else that the caller shows.
func TestBearerDecides(t *testing.T) {
	ca := newAuthority(t, "corp")
	leaf := ca.leaf(t, "CN=ci", nil)
	path := put(t, who(`{"name": "ci", "tenant": "contoso", "certificates": [{"authority": "corp", "subject": "CN=ci"}]}`,
		`"authorities": [{"name": "corp", "file": "`+ca.file(t)+`"}]`))
	d := start(t, path, Options{})
	chains := ca.chains(t, leaf)
	if _, err := d.Authenticate(t.Context(), Credential{Chains: chains}); err != nil {
		t.Fatalf("the certificate alone: %v", err)
	}
	if _, err := d.Authenticate(t.Context(), Credential{Chains: chains, Bearer: "x"}); err != ErrUnauthenticated {
		t.Errorf("the certificate beside a wrong token: %v", err)
	}
}

// TestNoSecretIsShown is C16: nothing of what callers show gets into the log or an error.
func TestNoSecretIsShown(t *testing.T) {
	token, secret := newSecret(tokenPrefix), newSecret(secretPrefix)
	var j journal
	path := put(t, who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "`+sumOf(token)+`", "expires": "2001-01-01T00:00:00Z"}],
		"client": {"id": "`+clientID+`", "secrets": [{"sha256": "`+sumOf(secret)+`", "expires": "2001-01-01T00:00:00Z"}]}}`))
	d := start(t, path, Options{Log: j.log()})
	shown := []string{token, secret, newSecret(tokenPrefix), newSecret(secretPrefix), "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.", "hunter2"}
	for _, s := range shown {
		_, err := d.Authenticate(t.Context(), Credential{Bearer: s, From: "192.0.2.1"})
		_, _, err2 := d.IssueToken(t.Context(), clientID, s, "", "")
		_, _, err3 := d.IssueToken(t.Context(), s, s, "", "")
		if err != ErrUnauthenticated || err2 != ErrUnauthenticated || err3 != ErrUnauthenticated {
			t.Errorf("%v, %v, %v", err, err2, err3)
		}
	}
	write(t, path, who(`{"name": "`+token+`", "tenant": "`+secret+`", "tokens": [{"sha256": "`+token+`"}]}`))
	err := d.Reload()
	if err == nil {
		t.Fatal("a wrong file was taken")
	}
	for _, s := range shown {
		if strings.Contains(j.String()+err.Error(), s) {
			t.Errorf("%s is in the log or the error:\n%s\n%v", s, j.String(), err)
		}
	}
	if !strings.Contains(j.String(), "192.0.2.1") || !strings.Contains(j.String(), "has expired") {
		t.Errorf("the log doesn't say who and why:\n%s", j.String())
	}
	if c := (Created{ID: "a", Secret: token}); strings.Contains(c.String()+c.GoString(), token) {
		t.Error("a new credential shows its secret when printed")
	}
}

// FuzzBearer: no token panics or gets in, whatever it looks like.
func FuzzBearer(f *testing.F) {
	secret, token := newSecret(secretPrefix), newSecret(tokenPrefix)
	path := put(f, who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "`+sumOf(token)+`"}],
		"client": {"id": "`+clientID+`", "secrets": [{"sha256": "`+sumOf(secret)+`"}]}}`))
	d := start(f, path, Options{})
	own, _, err := d.IssueToken(f.Context(), clientID, secret, "a", "i")
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.Context())
	cancel() // a refusal needn't take its time
	for _, s := range []string{"", token, own, own[:len(own)-2] + "AA", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", strings.Repeat("A", bearerBytes+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, bearer string) {
		c, err := d.Authenticate(ctx, Credential{Bearer: bearer})
		// The last letter of a signature in base64url holds bits that aren't part of it.
		good := bearer == token || len(bearer) == len(own) && bearer[:len(own)-1] == own[:len(own)-1]
		if (err == nil) != good && bearer != own && !(err != nil && good) {
			t.Fatalf("%q: %+v, %v", bearer, c, err)
		}
		if (bearer == token || bearer == own) && err != nil {
			t.Fatalf("a good token: %v", err)
		}
	})
}

// BenchmarkAuthenticate: a static token, and a token of ours.
func BenchmarkAuthenticate(b *testing.B) {
	secret, token := newSecret(secretPrefix), newSecret(tokenPrefix)
	path := put(b, who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "`+sumOf(token)+`"}],
		"client": {"id": "`+clientID+`", "secrets": [{"sha256": "`+sumOf(secret)+`"}]}}`))
	d := start(b, path, Options{})
	own, _, err := d.IssueToken(b.Context(), clientID, secret, "a", "i")
	if err != nil {
		b.Fatal(err)
	}
	for name, bearer := range map[string]string{"token": token, "issued": own} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Authenticate(b.Context(), Credential{Bearer: bearer}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
