package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/wholefile"
)

// ErrNotFound: the file has no such identity, or the identity no such credential.
var ErrNotFound = errors.New("not found")

// ErrBusy: another edit of the file has been under way for too long.
var ErrBusy = errors.New("the identities file is being edited")

// Edits of a file wait so long for one another.
const (
	lockWait  = 10 * time.Second
	lockRetry = 20 * time.Millisecond
)

// edit changes the file in one step: a reader finds the old text or the new one, two edits at a time follow
// each other, and a text that [Open] would refuse is not written. The layout of the file becomes ours.
func edit(ctx context.Context, path string, change func(*document) error) error {
	path, err := filepath.EvalSymlinks(path) // what a link points to is replaced, not the link
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	text, err := readBounded(path, fileBytes)
	if err != nil {
		return err
	}
	doc, err := check(path, text)
	if err != nil {
		return err
	}
	if err := change(&doc); err != nil {
		return err
	}
	if text, err = doc.text(); err != nil {
		return err
	}
	if _, err := check(path, text); err != nil {
		return fmt.Errorf("the change isn't written: %w", err)
	}
	return replace(path, text)
}

// check returns the document of a text that can be put in force.
func check(path string, text []byte) (document, error) {
	r := reader{dir: filepath.Dir(path),
		file: func(path string) ([]byte, error) { return readBounded(path, fileBytes) },
		source: func(url string, ca []byte) (*issuer, error) {
			_, err := newClient(ca, nil)
			return &issuer{url: url}, err
		}}
	if _, err := r.read(text); err != nil {
		return document{}, fmt.Errorf("%s: %w", path, err)
	}
	return r.doc, nil
}

// text returns the document as it is written.
func (d document) text() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, err
	}
	if b.Len() > fileBytes {
		return nil, fmt.Errorf("the file would have more than %d bytes", fileBytes)
	}
	return b.Bytes(), nil
}

// lock takes the lock file beside the file. It stays there: removing it would let two have it.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, ErrBusy)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s.lock: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(lockRetry):
		}
	}
}

// replace puts a text in the place of the file. Owner and group stay, so that the server that reads the
// file as another user than the one who edits it still can. Of the mode only the group's right to read
// stays beside the owner's.
func replace(path string, text []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return wholefile.Replace(path, 0o600|info.Mode().Perm()&0o040, func(f *os.File) error {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
			if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
		return wholefile.Text(text)(f)
	})
}
