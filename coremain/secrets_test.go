package coremain

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecretsStayIn is C16 for the whole program: what callers show, what files hold and what a Corefile hands over is in no
// line of the log, no answer, no metric and no page of pprof, also where something is wrong with it.
func TestSecretsStayIn(t *testing.T) {
	dir, dns, api, prom, prof := t.TempDir(), freePort(t), freePort(t), freePort(t), freePort(t)
	run := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := result(t, dir, args...)
		if code != 0 {
			t.Fatalf("%v: code %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	run("token", "--file", "identities.json", "init")
	token := strings.TrimSpace(run("token", "--file", "identities.json", "create", "ci", "--tenant", "operator", "--role", "owner"))
	client := run("token", "--file", "identities.json", "create", "app", "--tenant", "operator", "--role", "owner", "--client")
	id := find(t, `client ID +(\S+)`, client)
	secret := find(t, `secret +(\S+)`, client)
	file, err := os.ReadFile(filepath.Join(dir, "identities.json"))
	if err != nil {
		t.Fatal(err)
	}
	tenant := find(t, `(?s)"tenants".*?"id": *"([^"]+)"`, string(file))
	const password, wrong, inBody, inQuery, inURL = "correct-horse-battery", "hunter2-as-a-bearer", "hunter2-in-a-body", "hunter2-in-a-query", "hunter2-in-a-url"
	const key, bearer = "the-key-that-bodies-are-signed-with", "the-token-of-a-receiver"
	for name, text := range map[string]string{"password": password + "\nmore\n", "key": key + "\n", "bearer": bearer + "\n",
		"broken.key": "-----BEGIN PRIVATE KEY-----\n" + password + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := ".:" + dns + " {\n bind 127.0.0.1\n debug\n log\n errors\n linkproxy\n privatelink\n prometheus 127.0.0.1:" + prom + "\n pprof 127.0.0.1:" + prof +
		"\n linkapi 127.0.0.1:" + api + " {\n  identities identities.json\n }\n linkexport siem {\n  webhook http://127.0.0.1:1/" + inURL +
		"\n  secret key\n  token bearer\n }\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "Corefile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startIn(t, dir, dns)

	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	said := map[string]string{}
	ask := func(method, where, bearer, kind, body string) (status int, answer string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, where, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Status + string(b)
	}
	base := "https://127.0.0.1:" + api
	const json, form = "application/json", "application/x-www-form-urlencoded"
	status, issued := ask("POST", base+"/"+tenant+"/oauth2/v2.0/token", "", form, url.Values{"grant_type": {"client_credentials"},
		"client_id": {id}, "client_secret": {secret}, "scope": {base + "/.default"}}.Encode())
	own := find(t, `"access_token": *"([^"]+)"`, issued)
	if status != http.StatusOK {
		t.Fatalf("no token: %s", issued)
	}
	for _, r := range []struct {
		name                           string
		method, path, bearer, form, in string
		status                         int
	}{
		{"a list", "GET", "/subscriptions?api-version=2022-12-01", token, "", "", 200},
		{"a list, by an issued token", "GET", "/subscriptions?api-version=2022-12-01", own, "", "", 200},
		{"a wrong bearer", "GET", "/subscriptions?api-version=2022-12-01", wrong, "", "", 401},
		{"a bearer with a letter more", "GET", "/subscriptions?api-version=2022-12-01", token + "x", "", "", 401},
		{"a token that was changed", "GET", "/subscriptions?api-version=2022-12-01", own[:len(own)-6] + "AAAAAA", "", "", 401},
		{"a wrong client secret", "POST", "/" + tenant + "/oauth2/v2.0/token", "", form, "grant_type=client_credentials&client_id=" + id + "&client_secret=" + wrong, 401},
		{"a body that is none", "PUT", "/subscriptions/x/resourcegroups/y?api-version=2022-12-01", token, json, `{"password": "` + inBody + `"`, 0},
		{"a query nobody knows", "GET", "/nothing?access_token=" + inQuery, token, "", "", 0},
	} {
		got, answer := ask(r.method, base+r.path, r.bearer, r.form, r.in)
		if said[r.name] = answer; r.status != 0 && got != r.status {
			t.Errorf("%s: %s", r.name, answer)
		}
	}

	// What is wrong with a file or a word of a Corefile is said without it.
	for _, more := range []string{
		" linkstore etcd https://127.0.0.1:1 {\n  user postern " + filepath.Join(dir, "password") + "\n }\n",
		" linkstore etcd https://postern:" + password + "@127.0.0.1:1\n",
		" tls " + filepath.Join(dir, "broken.key") + " " + filepath.Join(dir, "broken.key") + "\n",
		" linkexport other {\n  webhook http://192.0.2.1/" + inURL + "\n }\n",
		" linkexport other {\n  webhook https://postern:" + password + "@192.0.2.1/\n }\n",
	} {
		s.write(strings.Replace(text, " linkproxy\n", more+" linkproxy\n", 1))
		s.signal(syscall.SIGUSR1)
		s.await("reload refused")
	}
	for name, where := range map[string]string{"metrics": prom + "/metrics", "goroutines": prof + "/debug/pprof/goroutine?debug=2", "command line": prof + "/debug/pprof/cmdline", "heap": prof + "/debug/pprof/heap?debug=1"} {
		status, answer := ask("GET", "http://127.0.0.1:"+where, "", "", "")
		if said[name] = answer; status != http.StatusOK || len(answer) < 20 {
			t.Errorf("%s: %.200s", name, answer)
		}
	}
	s.await("can't be sent") // the receiver isn't there
	said["log"] = s.all()
	if !strings.Contains(said["log"], "127.0.0.1") || !strings.Contains(said["metrics"], "postern_") {
		t.Errorf("nothing was logged or counted:\n%s", said["log"])
	}
	for name, text := range said {
		for _, hidden := range []string{token, secret, own, own[len(own)-40:], password, wrong, inBody, inQuery, inURL, key, bearer} {
			if strings.Contains(text, hidden) {
				t.Errorf("%s is in %s:\n%.2000s", hidden, name, text)
			}
		}
	}
}

// find returns the first group of a match.
func find(t *testing.T, pattern, text string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %q", pattern, text)
	}
	return m[1]
}
