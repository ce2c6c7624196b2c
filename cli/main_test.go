package cli

import (
	"bytes"
	"context"
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/armapi"
	"github.com/postern-link/postern/control/identity"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store/bolt"
)

// TestMain makes the test binary the program itself where a script runs "postern".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"postern": func() {
			os.Exit(Main(os.Args[1:], Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Lines: linesOf}))
		},
	})
}

// linesOf reads the audit record of a state file.
func linesOf(ctx context.Context, path string) (func(yield func(Line, error) bool), error) {
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, err
	}
	return func(yield func(Line, error) bool) {
		defer s.Close()
		for l, err := range s.Lines(ctx, 1) {
			if !yield(Line{l.Revision, l.Bytes}, err) || err != nil {
				return
			}
		}
	}, nil
}

// The subscriptions of the world of the scripts.
const (
	opsSub      = "0a000000-0000-4000-8000-000000000001"
	contosoSub  = "0b000000-0000-4000-8000-000000000001"
	fabrikamSub = "0c000000-0000-4000-8000-000000000001"
)

const tenantsFile = `{"tenants":[
	{"name":"ops","id":"0a000000-0000-4000-8000-0000000000ff","operator":true,"subscriptions":[{"id":"` + opsSub + `","name":"Operator"}]},
	{"name":"contoso","id":"0b000000-0000-4000-8000-0000000000ff","subscriptions":[{"id":"` + contosoSub + `","name":"Contoso"}],"domains":["contoso.example"]},
	{"name":"fabrikam","id":"0c000000-0000-4000-8000-0000000000ff","subscriptions":[{"id":"` + fabrikamSub + `","name":"Fabrikam"}]}]}`

// world is a control API over TLS with a store and identities of its own.
type world struct {
	dir, url, ca string
	tokens       map[string]string
	close        func()
}

// newWorld starts one. The files are in dir: state, ca.pem, identities.json.
func newWorld(dir string) (*world, error) {
	path := filepath.Join(dir, "identities.json")
	if err := os.WriteFile(path, []byte(tenantsFile), 0o600); err != nil {
		return nil, err
	}
	w := &world{dir: dir, ca: filepath.Join(dir, "ca.pem"), tokens: map[string]string{}}
	for name, role := range map[string]control.Role{"ops": control.Owner, "contoso": control.Owner, "fabrikam": control.Owner, "reader": control.Reader} {
		tenant := strings.Replace(name, "reader", "contoso", 1)
		made, err := identity.CreateToken(context.Background(), path, identity.Holder{Identity: name, Tenant: tenant, Roles: []control.Grant{{Subscription: "*", Role: role}}})
		if err != nil {
			return nil, err
		}
		w.tokens[name] = made.Secret
	}
	directory, err := identity.Open(path, identity.Options{})
	if err != nil {
		return nil, err
	}
	store, err := bolt.Open(filepath.Join(dir, "state"), bolt.Options{})
	if err != nil {
		return nil, err
	}
	c := control.New(control.Config{
		Store: store, Tenants: directory, Zones: link.DefaultZones(), Node: "node1", Version: "v0", Log: slog.New(slog.DiscardHandler),
		Snapshot: func() *link.Snapshot {
			s, _ := store.Load(context.Background())
			return s
		},
	})
	api, err := armapi.New(armapi.Config{Control: c, Directory: directory})
	if err != nil {
		return nil, err
	}
	server := httptest.NewTLSServer(api)
	w.url = server.URL
	w.close = func() {
		server.Close()
		_ = store.Close()
		_ = directory.Close()
	}
	pemText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return w, os.WriteFile(w.ca, pemText, 0o600)
}

// env is the environment of one who signs in, as [connection.complete] reads it.
func (w *world) env(name string) map[string]string {
	sub := map[string]string{"ops": opsSub, "contoso": contosoSub, "reader": contosoSub, "fabrikam": fabrikamSub}[name]
	return map[string]string{
		"POSTERN_URL": w.url, "POSTERN_CA": w.ca, "POSTERN_TOKEN": w.tokens[name], "POSTERN_SUBSCRIPTION": sub, "POSTERN_GROUP": "net",
	}
}

// run runs one command in this process.
func (w *world) run(name, stdin string, args ...string) (code int, stdout, stderr string) {
	env := w.env(name)
	var out, errs bytes.Buffer
	code = Main(args, Env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(k string) string { return env[k] }, Lines: linesOf})
	return code, out.String(), errs.String()
}

func startWorld(t *testing.T) *world {
	t.Helper()
	w, err := newWorld(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// TestScripts runs the scenarios of testdata/script: the program as a process of its own against a real API.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			dir := filepath.Join(e.WorkDir, "world")
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
			w, err := newWorld(dir)
			if err != nil {
				return err
			}
			e.Defer(w.close)
			e.Setenv("HOME", e.WorkDir)
			// Without the second that the race detector otherwise adds to the end of a process.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("URL", w.url)
			for k, v := range w.env("contoso") {
				e.Setenv(k, v)
			}
			for name, token := range w.tokens {
				e.Setenv("TOKEN_"+strings.ToUpper(name), token)
			}
			e.Setenv("SUB_OPS", opsSub)
			e.Setenv("SUB_CONTOSO", contosoSub)
			e.Setenv("SUB_FABRIKAM", fabrikamSub)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"code": cmdCode, "as": cmdAs, "save": cmdSave},
	})
}

// cmdCode: code N COMMAND [ARG...] runs a command that ends with an exit code.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// cmdAs: as NAME signs in as somebody of the world.
func cmdAs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: as NAME")
	}
	name := strings.ToUpper(args[0])
	ts.Setenv("POSTERN_TOKEN", ts.Getenv("TOKEN_"+name))
	ts.Setenv("POSTERN_SUBSCRIPTION", ts.Getenv("SUB_"+strings.Replace(name, "READER", "CONTOSO", 1)))
}

// cmdSave: save VARIABLE keeps what the last command has printed, without the line's end.
func cmdSave(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: save VARIABLE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
