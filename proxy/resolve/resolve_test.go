package resolve

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-link/postern/link"
)

// script is a DNS that the tests write: what it finds of each name, and who asks when.
type script struct {
	mu    sync.Mutex
	found map[link.Name]Found
	asked map[link.Name]int
	told  []link.Name // of changes
	log   bytes.Buffer
}

func (s *script) set(name link.Name, f Found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found[name] = f
}

func (s *script) lookup(_ context.Context, name link.Name) Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[name]++
	return s.found[name]
}

func (s *script) changed(name link.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, name)
}

// Write takes the log.
func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

// said returns how many lines of the log have a text.
func (s *script) said(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (s *script) counts(name link.Name) (asked, told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.told {
		if one == name {
			told++
		}
	}
	return s.asked[name], told
}

// newNames returns names that ask a script.
func newNames(t *testing.T) (*Names, *script) {
	s := &script{found: map[link.Name]Found{}, asked: map[link.Name]int{}}
	log := slog.New(slog.NewTextHandler(s, nil))
	n := New(Config{Lookup: s.lookup, Changed: s.changed, Log: func() *slog.Logger { return log }})
	t.Cleanup(n.Close)
	return n, s
}

const db = link.Name("db.example")

// A name is looked up at once, again by its time to live, and no longer when nobody follows it.
func TestNamesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNames(t)
		if got := n.Get(db); got.Looked || got.Addrs != nil {
			t.Errorf("%+v", got)
		}
		s.set(db, Found{V4: half1(time.Minute, "10.0.0.1")})
		n.Follow(db)
		if err := n.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := n.Get(db); !slices.Equal(got.Addrs, addrs("10.0.0.1")) || got.Err != nil || !got.Looked {
			t.Errorf("%+v", got)
		}
		n.Follow(db, "b.example") // it stays what it is
		time.Sleep(53 * time.Second)
		if asked, told := s.counts(db); asked != 1 || told != 1 {
			t.Errorf("asked %d times and told %d before the time", asked, told)
		}
		s.set(db, Found{V4: half1(time.Minute, "10.0.0.2")})
		time.Sleep(8 * time.Second)
		if got := n.Get(db); !slices.Equal(got.Addrs, addrs("10.0.0.2")) {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Minute)
		if asked, told := s.counts(db); asked != 3 || told != 2 {
			t.Errorf("asked %d times and told %d", asked, told)
		}
		n.Leave(db, "b.example")
		synctest.Wait()
		time.Sleep(time.Hour)
		if asked, _ := s.counts(db); asked != 3 || n.Get(db).Looked {
			t.Errorf("asked %d times", asked)
		}
		if n.Count(Resolved) < 3 || n.Count(Empty) == 0 {
			t.Errorf("counted %d, %d, %d", n.Count(Resolved), n.Count(Empty), n.Count(Failed))
		}
	})
}

// What can't be found any more goes on to hold for [Keep]; each step is logged once, and told where addresses change.
func TestNameIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNames(t)
		s.set(db, Found{V4: half1(time.Minute, "10.0.0.1")})
		n.Follow(db)
		synctest.Wait()
		s.set(db, Found{away(), away()})
		time.Sleep(Keep)
		if got := n.Get(db); !slices.Equal(got.Addrs, addrs("10.0.0.1")) || got.Err == nil {
			t.Errorf("%+v", got)
		}
		if s.said("its addresses of before stay") != 1 {
			t.Errorf("log:\n%s", s.log.String())
		}
		time.Sleep(2 * time.Minute)
		if got := n.Get(db); got.Addrs != nil {
			t.Errorf("kept for too long: %+v", got)
		}
		if _, told := s.counts(db); told != 2 || s.said("are given up") != 1 {
			t.Errorf("told %d times, log:\n%s", told, s.log.String())
		}
		s.set(db, Found{V4: half1(time.Minute, "10.0.0.1")})
		time.Sleep(mostRetry)
		if got := n.Get(db); !slices.Equal(got.Addrs, addrs("10.0.0.1")) || got.Err != nil {
			t.Errorf("%+v", got)
		}
		if _, told := s.counts(db); told != 3 || s.said("is found again") != 1 {
			t.Errorf("told %d times, log:\n%s", told, s.log.String())
		}
	})
}

// A name that isn't found at first is told of once, and looked for until it is.
func TestNameIsNeverFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNames(t)
		n.Follow(db)
		synctest.Wait()
		if got := n.Get(db); !got.Looked || got.Err != ErrNone || got.Addrs != nil {
			t.Errorf("%+v", got)
		}
		time.Sleep(10 * time.Minute)
		if asked, told := s.counts(db); asked < 20 || asked > 40 || told != 1 || s.said("isn't found") != 1 {
			t.Errorf("asked %d times, told %d, log:\n%s", asked, told, s.log.String())
		}
		s.set(db, Found{V6: half1(time.Minute, "2001:db8::1")})
		n.Again()
		synctest.Wait()
		if got := n.Get(db); !slices.Equal(got.Addrs, addrs("2001:db8::1")) {
			t.Errorf("%+v", got)
		}
	})
}

// Close and Leave end lookups that are under way, and Wait those who wait for them.
func TestNamesEnd(t *testing.T) {
	var under sync.WaitGroup
	under.Add(2)
	n := New(Config{
		Lookup: func(ctx context.Context, _ link.Name) Found {
			under.Done()
			<-ctx.Done()
			return Found{away(), away()}
		},
		Changed: func(name link.Name) { t.Errorf("told of %s", name) },
	})
	n.Follow(db, "b.example")
	under.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Wait(ctx); err == nil {
		t.Error("waited for nothing")
	}
	n.Leave("b.example")
	n.Close()
	n.Follow("c.example")
	if err := n.Wait(t.Context()); err != nil {
		t.Errorf("error %v after the end", err)
	}
}
