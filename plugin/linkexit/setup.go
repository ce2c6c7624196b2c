package linkexit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/plugin/privatelink"
)

func init() { plugin.Register(name, setup) }

// mode is what is passed on.
type mode string

const (
	modeClosed mode = "closed"
	modeList   mode = "allow-list"
	modeOpen   mode = "open"
)

// settings is what one directive says.
type settings struct {
	mode     mode
	networks []link.ID // none: all that no other directive names
	path     string    // of the list, absolute
	list     *list
	rate     [2]int // queries a second and at once; zero is no limit
	txt      [2]int // the same of TXT queries
	names    int    // 0 is no limit
	period   time.Duration
	length   int // 0 is no limit
	refuse   *types
	rebind   []string // zones whose addresses aren't looked at, folded
	log      logged
}

// defaults returns the settings of a block that says nothing.
func defaults() settings {
	return settings{refuse: refusedTypes(), log: logRefused, period: 5 * time.Minute}
}

// setup parses; lists are read when the server starts.
func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	e := &Linkexit{
		rules: make(map[link.ID]*rule), stats: shared, start: time.Now(),
		log: &journal{to: handover.NewLogger(name)},
	}
	lists := map[*list]block.Position{}
	named := map[link.ID]block.Position{}
	var others block.Position
	for c.Next() {
		s := defaults()
		at, err := block.Parse(c, s.directive())
		if err != nil {
			return err
		}
		if err := s.check(at); err != nil {
			return err
		}
		if !privatelink.In(c) {
			return at.Errorf("the server block has no privatelink, which says whose query it is")
		}
		if !draft.Shared() { // else another node may declare it
			if err := declared(at, s.networks, draft.Networks()); err != nil {
				return err
			}
		}
		if s.mode == modeList {
			s.list = &list{path: s.path, log: e.log.to}
			lists[s.list] = at.Property("mode")
		}
		r := newRule(s)
		r.at = at
		for _, id := range s.networks {
			if first, ok := named[id]; ok {
				return at.Errorf("network %s is named already at %s", id, first)
			}
			named[id], e.rules[id] = at, r
		}
		if len(s.networks) == 0 {
			if e.other != nil {
				return at.Errorf("given already for all networks at %s; name the networks of this one", others)
			}
			others, e.other = at, r
		}
	}
	draft.AddExit(e)
	config := dnsserver.GetConfig(c)
	c.OnStartup(func() error {
		e.Forwards = config.Handler("forward") != nil
		for l, at := range lists {
			if err := l.open(); err != nil {
				return at.Errorf("mode: %w", err)
			}
		}
		return nil
	})
	c.OnShutdown(func() error { e.log.flush(); return nil })
	config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		e.Next = next
		return e
	})
	return nil
}

// newRule returns a rule that has counted nothing.
func newRule(s settings) *rule {
	r := &rule{settings: s, keys: newKeys()}
	if s.rate[0] > 0 {
		r.rates = newRates(s.rate[0], s.rate[1])
	}
	if s.txt[0] > 0 {
		r.texts = newRates(s.txt[0], s.txt[1])
	}
	if s.names > 0 {
		r.names = newNames(s.names, s.period)
	}
	return r
}

// check refuses what the properties don't allow together, and a list that isn't there (C12). It is only looked at.
func (s *settings) check(at block.Position) error {
	if s.mode == "" {
		return at.Errorf("mode is missing; it is closed, allow-list FILE or open")
	}
	if s.mode != modeList {
		return nil
	}
	info, err := os.Stat(s.path)
	switch {
	case err != nil:
		return at.Property("mode").Errorf("mode: %w", err)
	case !info.Mode().IsRegular():
		return at.Property("mode").Errorf("mode: %s is not a file", s.path)
	}
	return nil
}

// declared refuses a network that the Corefile doesn't declare: what a Corefile speaks of is in it. An ID
// of several segments is one of the control API's.
func declared(at block.Position, networks, known []link.ID) error {
	for _, id := range networks {
		if !strings.Contains(string(id), "/") && !slices.Contains(known, id) {
			return at.Errorf("network %s is not declared in this Corefile", id)
		}
	}
	return nil
}

// directive is the table of the directive's properties.
func (s *settings) directive() block.Directive {
	return block.Directive{
		Name: name, Usage: "[NETWORK...]", Max: block.Any,
		Set: func(args []string) (err error) {
			s.networks, err = block.List(args, block.Reference)
			return err
		},
		Properties: []block.Property{
			{Name: "mode", Usage: "closed|allow-list FILE|open", Min: 1, Max: 2, Set: s.setMode},
			{Name: "rate", Usage: "N [BURST]", Min: 1, Max: 2, Set: setRate(&s.rate)},
			{Name: "txt", Usage: "N [BURST]", Min: 1, Max: 2, Set: setRate(&s.txt)},
			{Name: "names", Usage: "N [PERIOD]", Min: 1, Max: 2, Set: s.setNames},
			{Name: "length", Usage: "N", Min: 1, Max: 1, Set: func(args []string) (err error) {
				s.length, err = block.Int(args[0], 1, 253)
				return err
			}},
			{Name: "refuse", Usage: "TYPE...|none", Min: 1, Max: block.Any, Set: s.setRefuse},
			{Name: "rebind", Usage: "ZONE...", Min: 1, Max: block.Any, Set: s.setRebind},
			{Name: "log", Usage: "refused|all|off", Min: 1, Max: 1, Set: func(args []string) (err error) {
				s.log, err = block.Word(args[0], logRefused, logAll, logOff)
				return err
			}},
		},
	}
}

func (s *settings) setMode(args []string) (err error) {
	if s.mode, err = block.Word(args[0], modeClosed, modeList, modeOpen); err != nil {
		return err
	}
	switch file := len(args) == 2; {
	case file && s.mode != modeList:
		return fmt.Errorf("%s takes no file", s.mode)
	case !file && s.mode == modeList:
		return errors.New("allow-list takes the file with the names")
	case file:
		s.path, err = filepath.Abs(args[1])
	}
	return err
}

// setRate takes a rate and, or as much as that, what may come at once.
func setRate(to *[2]int) func([]string) error {
	return func(args []string) (err error) {
		if to[0], err = block.Int(args[0], 1, 1000000); err != nil {
			return err
		}
		to[1] = to[0]
		if len(args) == 2 {
			to[1], err = block.Int(args[1], 1, 1000000)
		}
		return err
	}
}

func (s *settings) setNames(args []string) (err error) {
	if s.names, err = block.Int(args[0], 1, maxNames); err == nil && len(args) == 2 {
		s.period, err = block.Duration(args[1], time.Second, 24*time.Hour)
	}
	return err
}

func (s *settings) setRefuse(args []string) error {
	s.refuse = new(types)
	if len(args) == 1 && args[0] == "none" {
		return nil
	}
	for _, arg := range args {
		first, last, err := parseTypes(arg)
		if err != nil {
			return err
		}
		for t := first; t <= last; t++ {
			s.refuse.add(uint16(t))
		}
	}
	return nil
}

func (s *settings) setRebind(args []string) (err error) {
	s.rebind, err = block.List(args, func(arg string) (string, error) {
		if arg == "." {
			return "", nil
		}
		zone := strings.ToLower(strings.TrimSuffix(arg, "."))
		if err := checkName(zone); err != nil {
			return "", fmt.Errorf("%s: %w", block.Quote(arg), err)
		}
		return zone, nil
	})
	return err
}

// types is a set of types of records.
type types [1 << 16 / 64]uint64

func (t *types) add(rrtype uint16)      { t[rrtype/64] |= 1 << (rrtype % 64) }
func (t *types) has(rrtype uint16) bool { return t[rrtype/64]&(1<<(rrtype%64)) != 0 }

// refusedTypes returns those that nobody needs to ask others for, and that carry what one likes: NULL, what is for
// private use (RFC 6895 section 3.1), keys, and questions for several types.
func refusedTypes() *types {
	t := new(types)
	for _, rrtype := range []uint16{
		dns.TypeNone, dns.TypeNULL, dns.TypeKEY, dns.TypeOPT, dns.TypeTKEY, dns.TypeTSIG, dns.TypeMAILB, dns.TypeMAILA, dns.TypeANY,
	} {
		t.add(rrtype)
	}
	for rrtype := 65280; rrtype <= 65535; rrtype++ {
		t.add(uint16(rrtype))
	}
	return t
}

// parseTypes reads "TXT", "TYPE65280" (RFC 3597 section 5) or "65280-65534".
func parseTypes(arg string) (first, last int, err error) {
	if from, to, ok := strings.Cut(arg, "-"); ok && from != "" && from[0] >= '0' && from[0] <= '9' {
		first, err = block.Int(from, 0, 65535)
		if err == nil {
			last, err = block.Int(to, first, 65535)
		}
		return first, last, err
	}
	word := strings.ToUpper(arg)
	if t, ok := dns.StringToType[word]; ok {
		return int(t), int(t), nil
	}
	if number, ok := strings.CutPrefix(word, "TYPE"); ok {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			return int(n), int(n), nil
		}
	}
	return 0, 0, fmt.Errorf("%s is no type of a record; one looks like TXT, TYPE65280 or 65280-65534", block.Quote(arg))
}
