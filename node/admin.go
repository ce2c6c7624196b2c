package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
)

// A running node serves backup and restore on a Unix socket, which only its owner can open. It is beside
// the state file, so that whoever may read the state may ask for it while the node has it locked, or where
// the configuration says for a state that is shared.
//
//	GET  /backup    the state of one moment, as store.ReadBackup reads it
//	POST /restore   a backup; it becomes the state. Answers {"revision": N}
//	POST /upgrade   another process takes the place of this one. Answers {} when it has
//
// Errors are {"error": "..."} with a status that isn't 200.

// SocketPath returns the path of the socket that belongs to a state file.
func SocketPath(statePath string) string { return statePath + ".sock" }

// Client returns an HTTP client whose every request goes to the node with the socket, of [Place.Socket].
// Dialling fails at once where no node runs.
func Client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			addr, done, err := shortPath(socket)
			if err != nil {
				return nil, err
			}
			defer done()
			return new(net.Dialer).DialContext(ctx, "unix", addr)
		},
	}}
}

// lastAnswer is how long the end waits for answers that are under way.
const lastAnswer = time.Second

// maxRestore bounds what a restore may send: 1 GiB.
const maxRestore = 1 << 30

// admin is the server on the socket.
type admin struct {
	server http.Server
	path   string
	listen net.Listener
	remove func() error // once: the socket's path, which is another process's after leave
	left   atomic.Bool  // after leave
	done   chan struct{}
}

// serveAdmin starts the server; nil where the place has no socket.
func (n *Node) serveAdmin() (*admin, error) {
	a := &admin{path: n.place.Socket(), done: make(chan struct{})}
	if a.path == "" {
		return nil, nil
	}
	if err := n.removeSocket(a.path); err != nil {
		return nil, &PlaceError{fmt.Errorf("socket of the state: %w", err)}
	}
	addr, done, err := shortPath(a.path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.Listen("unix", addr)
	if err != nil {
		return nil, &PlaceError{fmt.Errorf("socket of the state %s: %w", a.path, err)}
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by its own path below: addr may be a short one
	if err := os.Chmod(a.path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /backup", n.serveBackup)
	mux.HandleFunc("POST /restore", n.serveRestore)
	mux.HandleFunc("POST /upgrade", n.serveUpgrade)
	a.listen = l
	a.remove = sync.OnceValue(func() error { return os.Remove(a.path) })
	a.server = http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go a.serve(owners{l.(*net.UnixListener)})
	return a, nil
}

// removeSocket removes a socket that was left by a process that has ended. Of a state file we hold the
// lock; nodes that share a state might have been given the same path.
func (n *Node) removeSocket(path string) error {
	if n.place.Shared() {
		resp, err := Client(path).Head("http://node/")
		if err == nil {
			resp.Body.Close()
			return fmt.Errorf("%s: another node listens on it", path)
		}
	}
	if i, err := os.Lstat(path); err == nil && i.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s: it is there and is no socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (a *admin) serve(l net.Listener) {
	defer close(a.done)
	_ = a.server.Serve(l) // ends with close
}

func (a *admin) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswer)
	defer cancel()
	_ = a.server.Shutdown(ctx) // who has asked for the upgrade is told of it
	err := a.server.Close()
	<-a.done
	return errors.Join(err, a.remove())
}

// leave gives the path up and accepts no more. What is under way goes on: it may be the request for the upgrade.
func (a *admin) leave() {
	a.left.Store(true)
	_ = a.remove()
	_ = a.listen.Close()
}

func (n *Node) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	f := n.upgrade.Load()
	if f == nil {
		answer(w, http.StatusNotImplemented, map[string]any{"error": "this process can't be upgraded"})
		return
	}
	if err := (*f)(r.Context()); err != nil {
		answer(w, http.StatusConflict, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{})
}

func (n *Node) serveBackup(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := n.store.Backup(r.Context(), w); err != nil {
		n.log.Error("backup", "error", err)
		// A backup that was cut has no end, and no reader takes it.
		panic(http.ErrAbortHandler)
	}
}

func (n *Node) serveRestore(w http.ResponseWriter, r *http.Request) {
	revision, objects, err := store.ReadBackup(http.MaxBytesReader(w, r.Body, maxRestore))
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return
	}
	now, err := n.restore(r.Context(), link.Restore{Objects: objects, Revision: revision})
	if err != nil {
		answer(w, http.StatusConflict, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{"revision": now.Revision()})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// replace commits a restore with the declaration in force on top of it.
func (n *Node) replace(ctx context.Context, backup link.Restore) (*link.Snapshot, error) {
	return store.Update(ctx, n.store, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{At: time.Now(), Actor: "operator", From: fmt.Sprintf("backup of revision %d", backup.Revision), Action: "restore"},
			[]link.Change{backup, n.config.Declaration}, nil
	})
}

// shortPath returns a path of a Unix socket that fits the 107 bytes that the kernel takes: through a
// descriptor of its directory where the path itself doesn't. done must be called when it was used.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) <= 107 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if len(short) > 107 {
		return "", nil, errors.Join(fmt.Errorf("socket %s: the file name is too long", strings.ToValidUTF8(path, "?")), dir.Close())
	}
	return short, func() { _ = dir.Close() }, nil
}
