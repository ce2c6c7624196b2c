package identity

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/control"
)

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
