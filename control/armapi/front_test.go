package armapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/control"
)

// TestSignInRefused is A01: each way to have no good credential has one answer.
func TestSignInRefused(t *testing.T) {
	r := newRig(t)
	path := "/subscriptions?api-version=2022-01-01"
	first := r.do("", "GET", path, nil).wantError(401, "AuthenticationFailed")
	if !strings.HasPrefix(first.header.Get("WWW-Authenticate"), "Bearer authorization_uri=") {
		t.Errorf("WWW-Authenticate: %q", first.header.Get("WWW-Authenticate"))
	}
	for name, value := range map[string]string{
		"malformed": "Bearer x", "no scheme": tokenOf("contoso"), "another scheme": "Basic eDp5", "nothing": "Bearer ", "empty": "",
		"a wrong secret": "Bearer ptk_" + random("wrong"), "not a JWT": "Bearer a.b.c", "two words": "Bearer a b",
	} {
		a := r.do("", "GET", path, nil, "Authorization: "+value).want(401)
		if string(a.body) != string(first.body) {
			t.Errorf("%s: body %s, want %s", name, a.body, first.body)
		}
	}
	// Before existence: unknown paths and methods answer in the same way.
	for _, p := range []string{"/nothing", "/subscriptions/" + contosoSub, "/subscriptions/" + contosoSub + "/resourceGroups/x"} {
		if a := r.do("", "PATCH", p, nil).want(401); string(a.body) != string(first.body) {
			t.Errorf("%s: body %s", p, a.body)
		}
	}
}

// TestSignInRate: who fails too often is told to wait, and who has a good credential isn't held up by others
// behind the same address.
func TestSignInRate(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t, func(c *Config, _ *control.Config) { c.Clock = func() time.Time { return now } })
	for range failureBurst {
		r.do("", "GET", "/subscriptions", nil).want(401)
	}
	a := r.do("", "GET", "/subscriptions", nil).wantError(429, "TooManyRequests")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	r.token("contoso", "wrong").want(429)
	r.do("contoso", "GET", "/subscriptions", nil).want(200)
}

// TestRate: an identity that is too fast is told when to come again; others aren't held up.
func TestRate(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t, func(c *Config, _ *control.Config) { c.Clock, c.Rate = func() time.Time { return now }, 0.5 })
	r.do("contoso", "GET", "/subscriptions", nil).want(200)
	a := r.do("contoso", "GET", "/subscriptions", nil).wantError(429, "TooManyRequests")
	if a.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q, want 2", a.header.Get("Retry-After"))
	}
	r.do("fabrikam", "GET", "/subscriptions", nil).want(200)
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(10, 2), time.Unix(0, 0)
	for i := range maxBuckets + 10 {
		l.take(string(rune(i))+"x", now)
	}
	if n := len(l.buckets); n > maxBuckets+1 {
		t.Errorf("%d buckets", n)
	}
	now = now.Add(time.Minute)
	l.take("x", now)
	if n := len(l.buckets); n != 1 {
		t.Errorf("%d buckets after all are full again", n)
	}
}

// TestUnknown is A02.
func TestUnknown(t *testing.T) {
	r := newRig(t)
	r.putGroup("contoso", contosoSub, "rg")
	group := groupPath(contosoSub, "rg")
	r.do("contoso", "GET", "/nothing", nil).wantError(404, "InvalidResourceType")
	r.do("contoso", "GET", group+"/providers/Microsoft.Network/nothing/x", nil).wantError(404, "InvalidResourceType")
	a := r.do("contoso", "POST", group, `{}`).wantError(405, "MethodNotAllowed")
	if a.header.Get("Allow") != "DELETE, GET, HEAD, PATCH, PUT" {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
	for _, ct := range []string{"text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin1"} {
		r.do("contoso", "PUT", group, `{"location":"local"}`, "Content-Type: "+ct).wantError(415, "UnsupportedMediaType")
	}
	r.do("contoso", "PUT", group, `{"location":"local"}`, "Content-Type: Application/JSON; charset=UTF-8").want(200)
	r.do("contoso", "PUT", group, `{"location":"local"}`, "Content-Encoding: gzip").wantError(415, "UnsupportedMediaType")
}

func TestVersion(t *testing.T) {
	r := newRig(t)
	r.do("contoso", "GET", "/subscriptions?api-version=", nil).wantError(400, "MissingApiVersionParameter")
	r.do("contoso", "GET", "/subscriptions?api-version=new", nil).wantError(400, "InvalidApiVersionParameter")
	for _, v := range []string{"2019-11-01", "2099-12-31", "2020-01-01-preview"} {
		r.do("contoso", "GET", "/subscriptions?api-version="+v, nil).want(200)
	}
}

// TestHosts is A12: a web page that was given our address sends its own name.
func TestHosts(t *testing.T) {
	u, err := url.Parse("https://postern.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, listen, host, origin string
		want                       int
	}{
		{"the URL's host", "10.0.0.1:8443", "postern.example:8443", "", 200},
		{"the URL's host, otherwise written", "10.0.0.1:8443", "Postern.Example.", "", 200},
		{"the address", "10.0.0.1:8443", "10.0.0.1:8443", "", 200},
		{"loopback", "10.0.0.1:8443", "127.0.0.1", "", 200},
		{"IPv6 loopback", "10.0.0.1:8443", "[::1]:8443", "", 200},
		{"localhost", "10.0.0.1:8443", "localhost:1", "", 200},
		{"an attacker", "10.0.0.1:8443", "attacker.example", "", 403},
		{"below localhost", "10.0.0.1:8443", "localhost.attacker.example", "", 403},
		{"another address", "10.0.0.1:8443", "10.0.0.2:8443", "", 403},
		{"any address where all are ours", "0.0.0.0:8443", "10.0.0.2:8443", "", 200},
		{"a name where all addresses are ours", "0.0.0.0:8443", "attacker.example", "", 403},
		{"its own origin", "10.0.0.1:8443", "postern.example:8443", "https://postern.example:8443", 200},
		{"the URL's origin", "10.0.0.1:8443", "127.0.0.1:8443", "https://postern.example:8443", 200},
		{"a foreign origin", "10.0.0.1:8443", "postern.example:8443", "https://attacker.example", 403},
		{"no TLS", "10.0.0.1:8443", "postern.example:8443", "http://postern.example:8443", 403},
		{"the null origin", "10.0.0.1:8443", "postern.example:8443", "null", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{Host: c.host, Header: http.Header{}}
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			err := newHosts(u, c.listen).check(r)
			if got := err == nil; got != (c.want == 200) {
				t.Errorf("%v, want %d", err, c.want)
			}
		})
	}
	rig := newRig(t)
	rig.do("contoso", "GET", "/subscriptions", nil, "Host: attacker.example").wantError(403, "HostNotAllowed")
	rig.do("contoso", "GET", "/subscriptions", nil, "Origin: https://attacker.example").wantError(403, "OriginNotAllowed")
	rig.do("", "GET", "/metadata/endpoints", nil, "Host: attacker.example").wantError(403, "HostNotAllowed")
	for _, h := range []string{"Access-Control-Allow-Origin", "Set-Cookie"} {
		if got := rig.do("contoso", "GET", "/subscriptions", nil).header.Get(h); got != "" {
			t.Errorf("%s: %q", h, got)
		}
	}
}

// TestBodies is A14 and A15 over HTTP.
func TestBodies(t *testing.T) {
	r := newRig(t)
	path := groupPath(contosoSub, "rg")
	r.do("contoso", "PUT", path, `{"location":"`+strings.Repeat("x", maxBody)+`"}`).wantError(413, "RequestEntityTooLarge")
	for _, body := range []string{``, `null`, `[]`, `{"location":"a","location":"b"}`, `{"location":"a"}{}`, `{"x":1e999}`, "{\"location\":\"\xff\"}", `{"location":"\udc00"}`,
		`{"x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`} {
		r.do("contoso", "PUT", path, body).wantError(400, "InvalidRequestContent")
	}
	a := r.do("contoso", "PUT", path, `{"location":7}`).wantError(400, "InvalidRequestFormat")
	if !strings.Contains(string(a.body), "'location'") {
		t.Errorf("the field isn't named: %s", a.body)
	}
	r.do("contoso", "GET", path, nil).wantError(404, "ResourceGroupNotFound")
	r.do("contoso", "PUT", path, `{"location":"local","unknown":{"a":[1]}}`).want(201)
}

// TestForeignSubscription is A03 and A25 for the subscription in the path: one of another tenant answers as
// one that doesn't exist, in any letter case.
func TestForeignSubscription(t *testing.T) {
	r := newRig(t)
	r.putGroup("contoso", contosoSub, "rg")
	absent := "0f000000-0000-4000-8000-000000000000"
	for _, c := range []struct{ method, path, body string }{
		{"GET", "", ""}, {"GET", "/locations", ""}, {"GET", "/providers", ""}, {"POST", "/providers/Microsoft.Network/register", ""},
		{"GET", "/resourceGroups", ""}, {"GET", "/resourceGroups/rg", ""}, {"HEAD", "/resourceGroups/rg", ""}, {"DELETE", "/resourceGroups/rg", ""},
		{"PUT", "/resourceGroups/rg", `{"location":"local"}`}, {"PATCH", "/resourceGroups/rg", `{}`}, {"GET", "/resourceGroups/rg/resources", ""},
	} {
		for _, sub := range []string{contosoSub, strings.ToUpper(contosoSub), absent, "nonsense"} {
			var body any
			if c.body != "" {
				body = c.body
			}
			a := r.do("fabrikam", c.method, "/subscriptions/"+sub+c.path, body).want(404)
			want := `{"error":{"code":"SubscriptionNotFound","message":"The subscription '` + sub + `' could not be found.","details":[]}}`
			if c.method != "HEAD" && string(a.body) != want {
				t.Errorf("%s %s: %s", c.method, c.path, a.body)
			}
		}
	}
	if subs := r.subscriptions("fabrikam"); !slices.Equal(subs, []string{fabrikamSub}) {
		t.Errorf("subscriptions of fabrikam: %v", subs)
	}
	if subs := r.subscriptions("contoso"); !slices.Equal(subs, []string{contosoSub, contosoSub2}) {
		t.Errorf("subscriptions of contoso: %v", subs)
	}
	if subs := r.subscriptions("nobody"); len(subs) != 0 {
		t.Errorf("subscriptions of nobody: %v", subs)
	}
	r.do("contoso", "GET", "/SUBSCRIPTIONS/"+strings.ToUpper(contosoSub)+"//RESOURCEGROUPS/RG", nil).want(200)
}

func (r *rig) subscriptions(name string) []string {
	r.t.Helper()
	var body struct {
		Value []struct{ SubscriptionID, TenantID, State string }
	}
	r.do(name, "GET", "/subscriptions?api-version=2019-11-01", nil).want(200).into(&body)
	ids := []string{}
	for _, s := range body.Value {
		ids = append(ids, s.SubscriptionID)
	}
	return ids
}

// TestPanic: a handler that panics is an answer of 500 and a log line.
func TestPanic(t *testing.T) {
	r := newRig(t)
	r.api.router = newRouter([]operation{{method: "GET", pattern: "/subscriptions", handle: func(*request) (reply, error) { panic("on purpose") }}})
	a := r.do("contoso", "GET", "/subscriptions", nil).wantError(500, "InternalServerError")
	if strings.Contains(string(a.body), "purpose") {
		t.Errorf("the caller is told: %s", a.body)
	}
	r.do("contoso", "GET", "/subscriptions", nil).want(500)
	if !strings.Contains(r.log.String(), "on purpose") {
		t.Errorf("the log: %s", r.log)
	}
}

// TestHeaders of every answer.
func TestHeaders(t *testing.T) {
	r := newRig(t)
	put := r.do("contoso", "PUT", groupPath(contosoSub, "rg"), `{"location":"local"}`).want(201)
	if put.header.Get("X-Go-Azure-Sdk-Skip-Polling-Delay") != "true" {
		t.Error("Terraform's SDK would wait for 10 s")
	}
	get := r.do("contoso", "GET", groupPath(contosoSub, "rg"), nil).want(200)
	if get.header.Get("X-Go-Azure-Sdk-Skip-Polling-Delay") != "" {
		t.Error("a GET says that it is final")
	}
	if get.header.Get("X-Ms-Request-Id") == "" || get.header.Get("X-Ms-Request-Id") == put.header.Get("X-Ms-Request-Id") {
		t.Errorf("request ID %q", get.header.Get("X-Ms-Request-Id"))
	}
	if get.header.Get("Cache-Control") != "no-store" {
		t.Error("answers may be cached")
	}
}
