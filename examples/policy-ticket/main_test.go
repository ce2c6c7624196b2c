package main

import (
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
	"github.com/postern-link/postern/policy/policyplugin"
)

// TestMain: the binary of the tests is the launcher and the program.
func TestMain(m *testing.M) {
	external.Launch()
	if os.Getenv(policyplugin.Handshake.MagicCookieKey) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestTickets runs the program as a node does, beside a ticket system.
func TestTickets(t *testing.T) {
	system := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/change/CHG1":
			_, _ = io.WriteString(w, "approved\n")
		case "/change/CHG2":
			_, _ = io.WriteString(w, "rejected\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer system.Close()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := external.Start(t.Context(), external.Config{
		Name: "tickets", Path: path, Args: []string{system.URL + "/change/"}, Checksum: sha256.Sum256(body),
		Reviews: true, Network: true, Memory: -1,
	}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for message, want := range map[string]link.State{
		"CHG1 for the quarter": link.Approved, "CHG2": link.Rejected, "CHG3": link.Pending, "please": link.Pending, "": link.Pending,
	} {
		d := p.Review(t.Context(), policy.Review{Network: &link.Network{}, Service: &link.Service{}, Endpoint: &link.Endpoint{}, Message: message})
		if d.State != want {
			t.Errorf("%q: %+v", message, d)
		}
	}
}
