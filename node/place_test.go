package node

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// C12: a file of the store that is missing or no good is refused, with its path, at a start and at a
// reload; nothing is asked of the cluster.
func TestPlaceCheck(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing, junk, two := filepath.Join(dir, "missing.pem"), file("junk.pem", "junk"), file("two", "one\ntwo\n")
	empty, good := file("empty", "\n"), file("good", "secret\n")
	for name, tt := range map[string]struct {
		etcd Etcd
		path string // that the error names; "": it is good
	}{
		"in clear":             {Etcd{Endpoints: "http://127.0.0.1:1"}, ""},
		"system's authorities": {Etcd{Endpoints: "https://127.0.0.1:1"}, ""},
		"CA missing":           {Etcd{Endpoints: "https://127.0.0.1:1", CA: missing}, missing},
		"CA is none":           {Etcd{Endpoints: "https://127.0.0.1:1", CA: junk}, junk},
		"certificate missing":  {Etcd{Endpoints: "https://127.0.0.1:1", Cert: missing, Key: junk}, missing},
		"certificate is none":  {Etcd{Endpoints: "https://127.0.0.1:1", Cert: junk, Key: junk}, junk},
		"password":             {Etcd{Endpoints: "https://127.0.0.1:1", User: "u", Password: good}, ""},
		"password missing":     {Etcd{Endpoints: "https://127.0.0.1:1", User: "u", Password: missing}, missing},
		"password empty":       {Etcd{Endpoints: "https://127.0.0.1:1", User: "u", Password: empty}, empty},
		"password of two":      {Etcd{Endpoints: "https://127.0.0.1:1", User: "u", Password: two}, two},
	} {
		t.Run(name, func(t *testing.T) {
			err := Place{Etcd: tt.etcd}.Check()
			if tt.path == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var place *PlaceError
			if !errors.As(err, &place) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("%v, want an error that names %s", err, tt.path)
			}
			if n, err := Open(t.Context(), Config{State: Place{Etcd: tt.etcd}}); !errors.As(err, &place) {
				t.Errorf("opened %v, %v", n, err)
			}
		})
	}
	if o, err := (Etcd{Endpoints: "https://127.0.0.1:1", User: "u", Password: good}).options(); err != nil || o.Password != "secret" {
		t.Errorf("password %q, %v", o.Password, err)
	}
}

// Nodes on one cluster have sockets of their own, and each serves the same state.
func TestSocketOnACluster(t *testing.T) {
	url, socket := startEtcd(t), filepath.Join(t.TempDir(), "postern.sock")
	c := bare("one", url)
	c.Declaration.Networks = []link.Network{{ID: "corp", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Origin: link.Origin{Declaration: "one", File: "Corefile", Line: 1}}}
	c.State.Etcd.Socket = socket
	n := open(t, c)
	other := bare("two", url)
	other.State.Etcd.Socket = socket
	var place *PlaceError
	if m, err := Open(t.Context(), other); !errors.As(err, &place) || !strings.Contains(err.Error(), socket) {
		t.Fatalf("two nodes on one socket: %v, %v", m, err)
	}
	resp, err := Client(socket).Get("http://node/backup")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if _, objects, err := store.ReadBackup(io.LimitReader(resp.Body, 1<<20)); err != nil || len(objects) != 1 {
		t.Errorf("backup of %d objects, %v", len(objects), err)
	}
	closeNode(t, n)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left over: %v", err)
	}
	// One that a killed process left is no hindrance; a file that is no socket is not removed.
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := Open(t.Context(), c); !errors.As(err, &place) {
		t.Fatalf("a file in the way: %v, %v", m, err)
	}
	moved := c
	moved.State.Etcd.Socket = ""
	n = open(t, moved)
	defer closeNode(t, n)
	if _, err := n.Prepare(t.Context(), c); err == nil {
		t.Error("the way to the state was changed by a reload")
	}
}
