package coremain

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/postern-link/postern/internal/wholefile"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/plugin/linkstore"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
)

// stateFlags are the flags that backup and restore share.
type stateFlags struct {
	*flag.FlagSet
	conf, state string
}

func newStateFlags(name string, stderr io.Writer) *stateFlags {
	f := &stateFlags{FlagSet: flag.NewFlagSet("postern "+name, flag.ContinueOnError)}
	f.SetOutput(stderr)
	f.StringVar(&f.conf, "conf", "", "Corefile that says where the state is (default \"Corefile\")")
	f.StringVar(&f.state, "state", "", "the state file itself")
	return f
}

// parse parses the flags and returns the exit code to end with, or -1 to go on.
func (f *stateFlags) parse(args []string, least, most int) int {
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case f.NArg() < least || f.NArg() > most:
		fmt.Fprintf(f.Output(), "%s: %d arguments given, %d allowed; \"postern help\" says which\n", f.Name(), f.NArg(), most)
		return 2
	case f.conf != "" && f.state != "":
		fmt.Fprintf(f.Output(), "%s: -conf and -state say the same thing; give one\n", f.Name())
		return 2
	}
	return -1
}

// place returns where the state lives that the flags mean.
func (f *stateFlags) place() (node.Place, error) {
	if f.state != "" {
		path, err := filepath.Abs(f.state)
		return node.Place{Bolt: path}, err
	}
	l, err := newLoader(f.conf)
	if err != nil {
		return node.Place{}, err
	}
	_, c, err := l.read()
	if err != nil {
		return node.Place{}, fmt.Errorf("%w (or give -state FILE)", err)
	}
	return c.place()
}

// place returns where the state lives that the Corefile names, or the default.
func (c *corefile) place() (node.Place, error) {
	for _, b := range c.blocks {
		if tokens := b.Tokens["linkstore"]; len(tokens) > 0 {
			return linkstore.Place(c.path, tokens)
		}
	}
	return linkstore.Place(c.path, nil)
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// backup writes the state, of a running node where there is one, else of the file.
func backup(args []string, stdout, stderr io.Writer) int {
	f := newStateFlags("backup", stderr)
	out := f.String("o", "", "file to write to, replaced when the backup is complete (default stdout)")
	if code := f.parse(args, 0, 0); code >= 0 {
		return code
	}
	place, err := f.place()
	if err != nil {
		return fail(stderr, err)
	}
	ctx, stop := interruptible()
	defer stop()
	src, err := openBackup(ctx, place)
	if err != nil {
		return fail(stderr, fmt.Errorf("backup of %s: %w", place, err))
	}
	defer src.Close()
	if *out == "" || *out == "-" {
		_, _, err = verified(src, stdout)
	} else {
		err = wholefile.Replace(*out, 0o600, func(f *os.File) error {
			revision, n, err := verified(src, f)
			if err == nil {
				fmt.Fprintf(stdout, "%s: revision %d, %s\n", *out, revision, count(n, "object"))
			}
			return err
		})
	}
	if err != nil {
		return fail(stderr, fmt.Errorf("backup of %s: %w", place, err))
	}
	return 0
}

// openBackup returns the bytes of a backup of the state at a place. Without a node it needs the right to
// read the state and nothing else: a disk that is full or read-only is a reason to make a backup.
func openBackup(ctx context.Context, place node.Place) (io.ReadCloser, error) {
	body, asked := askBackup(ctx, place)
	// Whose socket it is that we may not open, the lock of the file tells: of a node, or left by one.
	if !errors.Is(asked, errNoNode) && !errors.Is(asked, os.ErrPermission) {
		return body, asked
	}
	write, err := writeBackup(ctx, place)
	if err != nil {
		if !errors.Is(asked, errNoNode) {
			err = fmt.Errorf("%w; %w", asked, err)
		}
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	return r, nil
}

// openTime is how long a state that is shared may take to answer.
const openTime = 10 * time.Second

// writeBackup loads the state and returns what writes it.
func writeBackup(ctx context.Context, place node.Place) (func(io.Writer) error, error) {
	load, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	var snap *link.Snapshot
	var err error
	if place.Shared() {
		snap, err = loadShared(load, place)
	} else {
		snap, err = bolt.Read(place.Bolt)
	}
	if err != nil {
		return nil, err
	}
	return func(w io.Writer) error { return store.WriteBackup(ctx, w, snap, time.Now()) }, nil
}

func loadShared(ctx context.Context, place node.Place) (*link.Snapshot, error) {
	place.Etcd.ReadOnly = true // it isn't to be made where it isn't
	s, err := place.Open(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	snap, err := s.Load(ctx)
	return snap, errors.Join(err, s.Close())
}

// verified copies a backup and reads it on the way: one that was cut is an error, not a backup.
func verified(src io.Reader, dst io.Writer) (revision uint64, objects int, err error) {
	revision, all, err := store.ReadBackup(io.TeeReader(src, dst))
	return revision, len(all), err
}

// restore makes the state that of a backup.
func restore(args []string, stdout, stderr io.Writer) int {
	f := newStateFlags("restore", stderr)
	replace := f.Bool("replace", false, "replace the state that is there; a damaged file is moved aside")
	if code := f.parse(args, 1, 1); code >= 0 {
		return code
	}
	place, err := f.place()
	if err != nil {
		return fail(stderr, err)
	}
	body, revision, objects, err := readBackup(f.Arg(0))
	if err != nil {
		return fail(stderr, fmt.Errorf("%s: %w", f.Arg(0), err))
	}
	ctx, stop := interruptible()
	defer stop()
	now, err := uint64(0), errNoNode
	if running(place) {
		if !*replace {
			return fail(stderr, fmt.Errorf("restore to %s: a node is running with it; -replace makes its state that of the backup", place))
		}
		now, err = askRestore(ctx, place, body)
	}
	if errors.Is(err, errNoNode) {
		if place.Shared() {
			now, err = restoreShared(ctx, place, revision, objects, *replace)
		} else {
			now, err = restoreFile(ctx, place.Bolt, revision, objects, *replace, stdout)
		}
	}
	if err != nil {
		return fail(stderr, fmt.Errorf("restore to %s: %w", place, err))
	}
	fmt.Fprintf(stdout, "%s: restored %s of revision %d; it is at revision %d now\n", place, count(len(objects), "object"), revision, now)
	return 0
}

// maxBackup bounds a backup that is read, as a node does.
const maxBackup = 1 << 30

// readBackup reads and checks a backup before anything is touched.
func readBackup(name string) (body []byte, revision uint64, objects []link.Object, err error) {
	in := os.Stdin
	if name != "-" {
		if in, err = os.Open(name); err != nil {
			return nil, 0, nil, err
		}
		defer in.Close()
	}
	if body, err = io.ReadAll(io.LimitReader(in, maxBackup)); err != nil {
		return nil, 0, nil, err
	}
	revision, objects, err = store.ReadBackup(bytes.NewReader(body))
	return body, revision, objects, err
}

// restoreFile restores to the state file of a node that isn't running.
func restoreFile(ctx context.Context, path string, revision uint64, objects []link.Object, replace bool, stdout io.Writer) (uint64, error) {
	now := uint64(0)
	fill := func(s *bolt.Store) (err error) {
		now, err = restoreTo(ctx, s, revision, objects)
		return err
	}
	s, err := bolt.Open(path, bolt.Options{})
	switch {
	case err == nil:
	case !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign):
		return 0, err
	case !replace:
		return 0, fmt.Errorf("%w; \"postern restore -replace\" does the moving too", err)
	default:
		aside, err := bolt.Replace(path, time.Now(), fill)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(stdout, "%s: damaged, kept as %s\n", path, aside)
		return now, nil
	}
	now, err = restoreOver(ctx, s, revision, objects, replace)
	return now, errors.Join(err, s.Close())
}

// restoreShared restores to a state that nodes may share, by the settings of a Corefile. They follow as
// they do any commit.
func restoreShared(ctx context.Context, place node.Place, revision uint64, objects []link.Object, replace bool) (uint64, error) {
	open, cancel := context.WithTimeout(ctx, openTime) // to write a large state may take longer
	defer cancel()
	s, err := place.Open(open, nil, nil)
	if err != nil {
		return 0, err
	}
	now, err := restoreOver(ctx, s, revision, objects, replace)
	return now, errors.Join(err, s.Close())
}

// restoreOver restores to an open store, over a state that is there if replace says so.
func restoreOver(ctx context.Context, s store.Store, revision uint64, objects []link.Object, replace bool) (uint64, error) {
	there, err := s.Load(ctx)
	if err != nil {
		return 0, err
	}
	if there.Revision() > 0 && !replace {
		return 0, fmt.Errorf("it holds a state of revision %d; -replace makes it that of the backup", there.Revision())
	}
	return restoreTo(ctx, s, revision, objects)
}

// restoreTo commits the objects of a backup, and returns the revision after it.
func restoreTo(ctx context.Context, s store.Store, revision uint64, objects []link.Object) (uint64, error) {
	next, err := store.Update(ctx, s, func(*link.Snapshot) (store.Entry, []link.Change, error) {
		return store.Entry{
			At:     time.Now(),
			Actor:  "operator",
			From:   fmt.Sprintf("backup of revision %d", revision),
			Action: "restore",
		}, []link.Change{link.Restore{Objects: objects, Revision: revision}}, nil
	})
	if err != nil {
		return 0, err
	}
	return next.Revision(), nil
}
