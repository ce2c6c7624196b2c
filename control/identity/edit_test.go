package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-link/postern/control"
)

var reader1 = []control.Grant{{Subscription: "*", Role: control.Reader}}

func TestCreateListRevoke(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identities.json")
	if err := Init(path); err != nil {
		t.Fatal(err)
	}
	if err := Init(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second Init: %v", err)
	}
	d := start(t, path, Options{})
	ends := time.Now().Add(time.Hour).Truncate(time.Second)
	token, err := CreateToken(t.Context(), path, Holder{Identity: "ci", Tenant: "Operator", Roles: reader1, Expires: ends})
	if err != nil {
		t.Fatal(err)
	}
	client, err := CreateClient(t.Context(), path, Holder{Identity: "CI"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := CreateClient(t.Context(), path, Holder{Identity: "ci", Tenant: "operator"})
	if err != nil || second.ClientID != client.ClientID || second.Secret == client.Secret {
		t.Fatalf("%v, %v", second, err)
	}
	if err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Authenticate(t.Context(), Credential{Bearer: token.Secret}); err != nil || got.Name != "ci" || !got.Operator || len(got.Grants) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []Created{client, second} {
		if _, _, err := d.IssueToken(t.Context(), c.ClientID, c.Secret, "", ""); err != nil {
			t.Error(err)
		}
	}
	all, err := List(path)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if l := all[0]; l.Method != "token" || l.ID != token.ID || l.Identity != "ci" || l.Tenant != "Operator" || !slices.Equal(l.Roles, reader1) ||
		!l.Expires.Equal(ends) || time.Since(l.Created) > time.Minute {
		t.Errorf("%+v", l)
	}
	if l := all[1]; l.Method != "client" || l.ID != client.ID || l.ClientID != client.ClientID || !l.Expires.IsZero() {
		t.Errorf("%+v", l)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{token.Secret, client.Secret, second.Secret} {
		if strings.Contains(string(text)+fmt.Sprint(all), secret) {
			t.Error("a secret is in the file or the list")
		}
	}
	for _, tc := range []struct{ identity, id string }{{"nobody", ""}, {"ci", "0000000000000000"}} {
		if _, err := Revoke(t.Context(), path, tc.identity, tc.id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", tc, err)
		}
	}
	for i, id := range []string{token.ID, client.ID, strings.ToUpper(second.ID)} {
		if gone, err := Revoke(t.Context(), path, "ci", id); err != nil || gone != (i == 2) {
			t.Errorf("revoke %d: %v, %v", i, gone, err)
		}
	}
	if all, err := List(path); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestListOthers(t *testing.T) {
	path := put(t, who(`{"name": "a", "tenant": "contoso", "certificates": [{"sha256": "`+sumOf("x")+`"}],
		"oidc": [{"issuer": "https://i.example", "subject": "s", "claims": {"b": "2", "a": "1"}}]}`, `"issuers": [{"url": "https://i.example", "audiences": ["a"]}]`))
	all, err := List(path)
	if err != nil || len(all) != 2 || all[0].ID != sumOf("x") || all[1].ID != "https://i.example sub=s a=1 b=2" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestRefusedEdits: what Open would refuse isn't written.
func TestRefusedEdits(t *testing.T) {
	path := put(t, who(`{"name": "ci", "tenant": "contoso", "tokens": [{"sha256": "`+sumOf("x")+`"}]}`))
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]Holder{
		"no name":               {Tenant: "contoso"},
		"bad name":              {Identity: "a/b", Tenant: "contoso"},
		"no tenant":             {Identity: "x"},
		"tenant that isn't":     {Identity: "x", Tenant: "y"},
		"another tenant":        {Identity: "ci", Tenant: "fabrikam"},
		"other roles":           {Identity: "ci", Roles: reader1},
		"no such role":          {Identity: "x", Tenant: "contoso", Roles: []control.Grant{{Subscription: "*", Role: "admin"}}},
		"no such subscription":  {Identity: "x", Tenant: "contoso", Roles: []control.Grant{{Subscription: clientID, Role: control.Owner}}},
		"a secret as its name":  {Identity: newSecret(tokenPrefix) + "/"},
		"a time out of RFC3339": {Identity: "x", Tenant: "contoso", Expires: time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := CreateToken(t.Context(), path, h)
			if err == nil || c.Secret != "" || strings.Contains(err.Error(), tokenPrefix) {
				t.Errorf("%v, %v", c, err)
			}
			if _, err := CreateClient(t.Context(), path, h); err == nil {
				t.Error("a client was made")
			}
		})
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v\n%s", err, after)
	}
	write(t, path, "{")
	if _, err := CreateToken(t.Context(), path, Holder{Identity: "x", Tenant: "contoso"}); err == nil || !strings.Contains(err.Error(), "line 1: ") {
		t.Errorf("in a file that is wrong already: %v", err)
	}
}

// TestEditsFollowEachOther: of many edits at a time none is lost, and a reader finds a whole file each time.
func TestEditsFollowEachOther(t *testing.T) {
	path := put(t, who(""))
	const n = 12
	var all sync.WaitGroup
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := List(path); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range n {
		all.Go(func() {
			if _, err := CreateToken(t.Context(), path, Holder{Identity: fmt.Sprintf("ci%d", i), Tenant: "contoso"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(stop)
	reading.Wait()
	if all, err := List(path); err != nil || len(all) != n {
		t.Errorf("%d tokens, %v", len(all), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEditWaitsForTheLock(t *testing.T) {
	path := put(t, who(""))
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, ErrBusy)
	defer cancel()
	if _, err := CreateToken(ctx, path, Holder{Identity: "x", Tenant: "contoso"}); !errors.Is(err, ErrBusy) {
		t.Errorf("while another edit holds the lock: %v", err)
	}
	unlock()
	if _, err := CreateToken(t.Context(), path, Holder{Identity: "x", Tenant: "contoso"}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestEditKeepsModeAndLink(t *testing.T) {
	for _, tc := range []struct{ before, after fs.FileMode }{{0o600, 0o600}, {0o640, 0o640}, {0o666, 0o640}, {0o400, 0o600}} {
		path := put(t, who(""))
		if err := os.Chmod(path, tc.before); err != nil {
			t.Fatal(err)
		}
		alias := filepath.Join(t.TempDir(), "alias.json")
		if err := os.Symlink(path, alias); err != nil {
			t.Fatal(err)
		}
		if _, err := CreateToken(t.Context(), alias, Holder{Identity: "x", Tenant: "contoso"}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != tc.after {
			t.Errorf("%v became %v, want %v: %v", tc.before, info.Mode(), tc.after, err)
		}
		if info, err := os.Lstat(alias); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("the link is one no more: %v", err)
		}
	}
}

// TestEditKeepsTheOwner: an edit by root doesn't take the file from the server's user.
func TestEditKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	path := put(t, who(""))
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Skip(err)
	}
	if _, err := CreateToken(t.Context(), path, Holder{Identity: "x", Tenant: "contoso"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || !strings.Contains(fmt.Sprintf("%+v", info.Sys()), "Uid:65534 Gid:65534") {
		t.Errorf("%+v, %v", info.Sys(), err)
	}
}
