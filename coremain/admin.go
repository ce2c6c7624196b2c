package coremain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"

	"github.com/postern-link/postern/node"
)

// errNoNode: no node listens, so the state may be opened.
var errNoNode = errors.New("no node is running")

// running reports whether a node answers on the socket of a place, or one that we may not speak to.
func running(place node.Place) bool {
	if place.Socket() == "" {
		return false
	}
	resp, err := node.Client(place.Socket()).Head("http://node/")
	if err == nil {
		resp.Body.Close()
	}
	return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED)
}

// ask sends one request to the node that listens on the socket of a place. The answer has status 200.
func ask(ctx context.Context, place node.Place, method, what string, body io.Reader) (*http.Response, error) {
	if place.Socket() == "" {
		return nil, errNoNode
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+what, body)
	if err != nil {
		return nil, err
	}
	resp, err := node.Client(place.Socket()).Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNoNode
	case err != nil:
		return nil, fmt.Errorf("ask the running node: %w", err)
	case resp.StatusCode == http.StatusOK:
		return resp, nil
	}
	defer resp.Body.Close()
	var problem struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&problem); err != nil || problem.Error == "" {
		problem.Error = resp.Status
	}
	return nil, fmt.Errorf("the running node refuses: %s", problem.Error)
}

// askBackup returns the backup that a running node writes.
func askBackup(ctx context.Context, place node.Place) (io.ReadCloser, error) {
	resp, err := ask(ctx, place, http.MethodGet, "/backup", nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// askRestore has a running node commit a backup, and returns the revision after it.
func askRestore(ctx context.Context, place node.Place, backup []byte) (uint64, error) {
	resp, err := ask(ctx, place, http.MethodPost, "/restore", bytes.NewReader(backup))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var done struct {
		Revision uint64 `json:"revision"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&done); err != nil {
		return 0, fmt.Errorf("answer of the running node: %w", err)
	}
	return done.Revision, nil
}
