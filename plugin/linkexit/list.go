package linkexit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxListBytes and maxListNames bound a list. A name in memory takes about a hundred bytes.
	maxListBytes = 16 << 20
	maxListNames = 250000
	// lookEvery is how often a list is looked at for a change.
	lookEvery = time.Second
	// settled is the age from which a file's time tells of every write: two within one tick of a file
	// system have the same.
	settled = 3 * time.Second
)

// list is the names of a file that may be asked for. Queries look at the file, so that nothing runs which a failed
// reload would leave behind: one of them in a second, the others read what is there.
type list struct {
	path string
	log  *slog.Logger

	entries atomic.Pointer[entries]
	next    atomic.Pointer[time.Time] // when to look again, by the clock that nobody sets; nil: now

	reload    sync.Mutex
	seen      fs.FileInfo // guarded by reload
	at        time.Time   // guarded by reload: when it was read
	complaint string      // guarded by reload: what was logged last
}

// entries are the names of a list, folded, immutable.
type entries map[string]scope

// scope is what an entry stands for.
type scope uint8

const (
	itself scope = 1 << iota // the name
	inner                    // all names below it
)

// open reads the list for the first time.
func (l *list) open() error {
	l.reload.Lock()
	defer l.reload.Unlock()
	return l.load()
}

// has reports whether a folded name may be asked for.
func (l *list) has(folded string) bool {
	now := time.Now()
	if next := l.next.Load(); next == nil || !now.Before(*next) {
		if later := now.Add(lookEvery); l.next.CompareAndSwap(next, &later) {
			l.look()
		}
	}
	e := *l.entries.Load()
	if e[folded]&itself != 0 {
		return true
	}
	for at := strings.IndexByte(folded, '.'); at >= 0; {
		if e[folded[at+1:]]&inner != 0 {
			return true
		}
		dot := strings.IndexByte(folded[at+1:], '.')
		if dot < 0 {
			return false
		}
		at += 1 + dot
	}
	return false
}

// look reads the file again if it is another one now, or might be. One that is wrong leaves the list as it is.
func (l *list) look() {
	if !l.reload.TryLock() {
		return // one of them looks
	}
	defer l.reload.Unlock()
	info, err := os.Stat(l.path)
	if err == nil && os.SameFile(info, l.seen) && info.Size() == l.seen.Size() && info.ModTime().Equal(l.seen.ModTime()) &&
		info.Mode() == l.seen.Mode() && l.at.Sub(info.ModTime()) >= settled {
		return
	}
	before := l.seen
	if err = l.load(); err == nil {
		l.complaint = ""
		if !os.SameFile(before, l.seen) || before.Size() != l.seen.Size() || !before.ModTime().Equal(l.seen.ModTime()) {
			l.log.Info("list of names reloaded", "file", l.path, "names", len(*l.entries.Load()))
		}
		return
	}
	if err.Error() != l.complaint {
		l.complaint = err.Error()
		l.log.Error("list of names not reloaded, the earlier one stays in force", "err", err)
	}
}

// load reads the file. The caller holds reload.
func (l *list) load() error {
	info, err := os.Stat(l.path) // before it is read: a change in between is found by the next look
	if err != nil {
		return err
	}
	at := time.Now()
	e, err := readList(l.path)
	if err != nil {
		return err
	}
	l.seen, l.at = info, at
	l.entries.Store(&e)
	return nil
}

// readList reads a file. Errors of its text carry file and line.
func readList(path string) (entries, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxListBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxListBytes {
		return nil, fmt.Errorf("%s: it has more than %d bytes", path, maxListBytes)
	}
	return parseList(path, text)
}

// parseList reads a list: one entry in a line, "#" begins a comment.
func parseList(path string, text []byte) (entries, error) {
	e := make(entries)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxListBytes+1)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := bytes.Cut(lines.Bytes(), []byte("#"))
		words := strings.Fields(string(line))
		if len(words) == 0 {
			continue
		}
		if len(words) > 1 {
			return nil, fmt.Errorf("%s:%d: one name in a line is allowed", path, n)
		}
		name, s, err := parseEntry(words[0])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		e[name] |= s
		if len(e) > maxListNames {
			return nil, fmt.Errorf("%s:%d: more than %d names", path, n, maxListNames)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(e) == 0 {
		// A file that is being written, most likely. Who wants to pass nothing on says so.
		return nil, fmt.Errorf("%s: no name in it; to pass nothing on, use mode closed", path)
	}
	return e, nil
}

// parseEntry reads "name", "*.name" for all that is below it, or ".name" for both.
func parseEntry(word string) (string, scope, error) {
	s, rest := itself, word
	if below, ok := strings.CutPrefix(word, "*."); ok {
		s, rest = inner, below
	} else if both, ok := strings.CutPrefix(word, "."); ok {
		s, rest = itself|inner, both
	}
	name := strings.ToLower(strings.TrimSuffix(rest, "."))
	if err := checkName(name); err != nil {
		if len(word) > 80 {
			word = word[:80] + "..."
		}
		return "", 0, fmt.Errorf("%q: %w", word, err)
	}
	return name, s, nil
}

// checkName refuses what is no name of a host or service. Underscores are fine, as in _ldap._tcp (RFC 8552).
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("that is all names; to pass all on, use mode open")
	case len(name) > 253:
		return errors.New("a name has at most 253 bytes")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return errors.New("that is an address, not a name")
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return errors.New("a label is empty")
		case len(label) > 63:
			return errors.New("a label has at most 63 bytes")
		case strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
			return errors.New("labels are made of letters, digits, '-' and '_'; names in other scripts begin with xn--")
		}
	}
	return nil
}
