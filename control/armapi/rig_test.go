package armapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/control/internal/controltest"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The world of the rig: the operator, and two tenants who have never met. contoso publishes services,
// fabrikam asks for endpoints.
const (
	operatorSub = "0a000000-0000-4000-8000-000000000001"
	contosoSub  = "0b000000-0000-4000-8000-000000000001"
	contosoSub2 = "0b000000-0000-4000-8000-000000000002"
	fabrikamSub = "0c000000-0000-4000-8000-000000000001"
)

// who can sign in to the rig, each with its token and as a client: tenant and roles. An owner has all the
// subscriptions of the tenant.
var who = []struct{ name, tenant, roles string }{
	{"operator", "ops", `[{"subscription":"*","role":"owner"}]`},
	{"contoso", "contoso", `[{"subscription":"*","role":"owner"}]`},
	{"fabrikam", "fabrikam", `[{"subscription":"*","role":"owner"}]`},
	{"contoso-provider", "contoso", `[{"subscription":"` + contosoSub + `","role":"provider"}]`},
	{"contoso-approver", "contoso", `[{"subscription":"` + contosoSub + `","role":"approver"}]`},
	{"contoso-reader", "contoso", `[{"subscription":"` + contosoSub + `","role":"reader"}]`},
	{"fabrikam-network", "fabrikam", `[{"subscription":"` + fabrikamSub + `","role":"network"}]`},
	{"fabrikam-reader", "fabrikam", `[{"subscription":"` + fabrikamSub + `","role":"reader"}]`},
	{"nobody", "fabrikam", `[]`},
}

// tokenOf returns the static token of somebody, secretOf the secret of the client and clientOf its ID.
func tokenOf(name string) string  { return "ptk_" + random("token "+name) }
func secretOf(name string) string { return "pcs_" + random("secret "+name) }
func clientOf(name string) string {
	sum := sha256.Sum256([]byte("client " + name))
	return guid([16]byte(sum[:16]))
}

func random(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// identities is the file.
func identities() string {
	var all []string
	for _, w := range who {
		all = append(all, fmt.Sprintf(`{"name":%q,"tenant":%q,"roles":%s,"tokens":[{"sha256":%q}],"client":{"id":%q,"secrets":[{"sha256":%q}]}}`,
			w.name, w.tenant, w.roles, sha(tokenOf(w.name)), clientOf(w.name), sha(secretOf(w.name))))
	}
	return `{"tenants":[
		{"name":"ops","id":"0a000000-0000-4000-8000-0000000000ff","operator":true,"subscriptions":[{"id":"` + operatorSub + `","name":"Operator"}]},
		{"name":"contoso","id":"0b000000-0000-4000-8000-0000000000ff","subscriptions":[{"id":"` + contosoSub + `","name":"Contoso"},{"id":"` + contosoSub2 + `","name":"Contoso 2"}],"domains":["contoso.example","contoso.database.windows.net"]},
		{"name":"fabrikam","id":"0c000000-0000-4000-8000-0000000000ff","subscriptions":[{"id":"` + fabrikamSub + `","name":"Fabrikam"}],"domains":["fabrikam.example"]}],
		"identities":[` + strings.Join(all, ",") + `]}`
}

// rig is a control API over TLS on 127.0.0.1, with a real store and real operations behind it.
type rig struct {
	t         testing.TB
	api       *API
	store     *bolt.Store
	control   *control.Control
	directory *identity.Directory
	server    *httptest.Server
	url       string       // https://127.0.0.1:PORT
	client    *http.Client // trusts the certificate
	log       *bytes.Buffer
}

// newRig starts a rig; change may alter the configurations before that.
func newRig(t testing.TB, change ...func(*Config, *control.Config)) *rig {
	t.Helper()
	r := &rig{t: t, log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil))
	ac := Config{Log: log}
	w := controltest.Start(t, identities(), log, func(cc *control.Config) {
		for _, f := range change {
			f(&ac, cc)
		}
	})
	r.directory, r.store, r.control = w.Directory, w.Store, w.Control
	ac.Directory, ac.Control = w.Directory, w.Control
	var err error
	if r.api, err = New(ac); err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewUnstartedServer(r.api)
	r.server.EnableHTTP2 = true
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	r.url, r.client = r.server.URL, r.server.Client()
	r.client.Timeout = 30 * time.Second
	t.Cleanup(r.client.CloseIdleConnections)
	return r
}

// lockedWriter is written by handlers at the same time; slog holds a lock of its own around each line.
type lockedWriter struct{ w io.Writer }

func (l *lockedWriter) Write(b []byte) (int, error) { return l.w.Write(b) }

// answer is what the API has answered.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   []byte
}

// do sends a request of somebody ("" for nobody) with an API version. body is sent as JSON: nil for none, a string
// as it is. headers are "Name: value".
func (r *rig) do(name, method, path string, body any, headers ...string) answer {
	r.t.Helper()
	var b io.Reader
	switch v := body.(type) {
	case nil:
	case string:
		b = strings.NewReader(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			r.t.Fatal(err)
		}
		b = bytes.NewReader(text)
	}
	if !strings.Contains(path, "api-version=") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=2025-05-01"
	}
	if !strings.HasPrefix(path, "https:") {
		path = r.url + path
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, path, b)
	if err != nil {
		r.t.Fatal(err)
	}
	if name != "" {
		req.Header.Set("Authorization", "Bearer "+tokenOf(name))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		if k == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{r.t, method + " " + path, resp.StatusCode, resp.Header, text}
}

// want fails the test unless the answer has the status.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d: %s", a.what, a.status, status, a.body)
	}
	return a
}

// wantError fails the test unless the answer is an error with the status and code, in body and header.
func (a answer) wantError(status int, code string) answer {
	a.t.Helper()
	a.want(status)
	var e errorBody
	a.into(&e)
	if e.Error.Code != code || a.header.Get("X-Ms-Error-Code") != code || e.Error.Message == "" || e.Error.Details == nil {
		a.t.Fatalf("%s: error %s, header %q, want code %s", a.what, a.body, a.header.Get("X-Ms-Error-Code"), code)
	}
	return a
}

// into decodes the body.
func (a answer) into(v any) answer {
	a.t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/json; charset=utf-8" {
		a.t.Fatalf("%s: content type %q", a.what, ct)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s: %v: %s", a.what, err, a.body)
	}
	return a
}

// groupPath is the path of a resource group.
func groupPath(sub, group string) string {
	return "/subscriptions/" + sub + "/resourceGroups/" + group
}

// putGroup makes a resource group as its owner.
func (r *rig) putGroup(name, sub, group string) {
	r.t.Helper()
	r.do(name, "PUT", groupPath(sub, group), `{"location":"local"}`).want(201)
}

// declare commits objects as a Corefile declares them.
func (r *rig) declare(networks ...link.Network) {
	r.t.Helper()
	for i := range networks {
		networks[i].Origin = link.Origin{Declaration: "rig", File: "/etc/postern/Corefile", Line: 7 + i}
	}
	ctx := r.t.Context()
	s, err := r.store.Load(ctx)
	if err == nil {
		_, err = r.store.Commit(ctx, s, store.Entry{ID: requestID(), At: time.Now(), Actor: "rig", Action: "declare"}, link.Declare{Declaration: "rig", Networks: networks})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func credential(name string) identity.Credential {
	return identity.Credential{Bearer: tokenOf(name), From: "127.0.0.1"}
}

func opOf(c control.Caller) control.Op { return control.Op{Caller: c} }

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
