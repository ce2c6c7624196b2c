package linkstore

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

// The kinds of store.
const (
	kindBolt = "bolt"
	kindEtcd = "etcd"
)

// The bounds of an age by mode, and what is allowed for either. The store is heard of every two seconds, so
// that a bound must leave room for some that are missed.
const (
	bestEffort      = "best-effort"
	strict          = "strict"
	bestEffortBound = 15 * time.Minute
	strictBound     = 30 * time.Second
	leastBound      = 10 * time.Second
	mostBound       = 24 * time.Hour
)

var errEtcdOnly = errors.New("it is for etcd; a state file is this process's alone")

// settings is what the directive says. Zero values are the defaults.
type settings struct {
	kind      string
	path      string
	endpoints []*url.URL
	etcd      handover.Etcd
	mode      string
	bound     time.Duration
	origin    link.ID
}

// setKind takes the arguments of the directive.
func (s *settings) setKind(args []string) (err error) {
	if s.kind, err = block.Word(args[0], kindBolt, kindEtcd); err != nil {
		return err
	}
	args = args[1:]
	switch {
	case s.kind == kindEtcd && len(args) == 0:
		return errors.New("an endpoint is missing: the URL of a member, such as https://etcd-1.example:2379")
	case s.kind == kindEtcd:
		return s.setEndpoints(args)
	case len(args) > 1:
		return fmt.Errorf("%d paths are given, 1 is allowed; usage: %s bolt [PATH]", len(args), name)
	case len(args) == 1 && args[0] != "":
		s.path, err = filepath.Abs(args[0])
	}
	return err
}

func (s *settings) setEndpoints(args []string) error {
	for _, arg := range args {
		u, err := url.Parse(arg)
		switch {
		case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", u.Port() == "":
			return fmt.Errorf("%s is not an endpoint; one looks like https://etcd-1.example:2379", block.Quote(arg))
		case u.User != nil:
			return errors.New("a user in an endpoint is not allowed; give user NAME PASSWORD_FILE")
		case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
			return fmt.Errorf("endpoint %s has more than a host and a port", block.Quote(arg))
		case u.Scheme != cmp.Or(s.scheme(), u.Scheme):
			return errors.New("some endpoints are https and some are http")
		case slices.ContainsFunc(s.endpoints, func(o *url.URL) bool { return o.Host == u.Host }):
			return fmt.Errorf("endpoint %s is given twice", u.Host)
		}
		s.endpoints = append(s.endpoints, u)
	}
	return nil
}

// scheme returns that of all endpoints, "" where there is none yet.
func (s *settings) scheme() string {
	if len(s.endpoints) == 0 {
		return ""
	}
	return s.endpoints[0].Scheme
}

// setTLS takes none to three files as CoreDNS's other directives do.
func (s *settings) setTLS(args []string) (err error) {
	if s.scheme() != "https" {
		return errors.New("the endpoints are http; write them as https")
	}
	files := make([]string, len(args))
	for i, arg := range args {
		if files[i], err = absolute(arg); err != nil {
			return err
		}
	}
	switch len(files) {
	case 1:
		s.etcd.CA = files[0]
	case 2:
		s.etcd.Cert, s.etcd.Key = files[0], files[1]
	case 3:
		s.etcd.Cert, s.etcd.Key, s.etcd.CA = files[0], files[1], files[2]
	}
	return nil
}

func (s *settings) setUser(args []string) (err error) {
	if args[0] == "" {
		return errors.New("the name is empty")
	}
	if s.scheme() == "http" && slices.ContainsFunc(s.endpoints, func(u *url.URL) bool { return !isLoopback(u) }) {
		return errors.New("the password would be sent in clear; write the endpoints as https")
	}
	s.etcd.User = args[0]
	s.etcd.Password, err = absolute(args[1])
	return err
}

func isLoopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback() || u.Hostname() == "localhost"
}

func (s *settings) setPrefix(args []string) error {
	p := strings.Trim(args[0], "/")
	if p == "" || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' }) || strings.Contains(p, "//") {
		return fmt.Errorf("%s is not a prefix of keys; one looks like /postern/berlin", block.Quote(args[0]))
	}
	s.etcd.Prefix = "/" + p + "/"
	return nil
}

func (s *settings) setStale(args []string) (err error) {
	if s.mode, err = block.Word(args[0], bestEffort, strict); err == nil && len(args) == 2 {
		s.bound, err = block.Duration(args[1], leastBound, mostBound)
	}
	return err
}

// absolute returns the path of a file from the root on.
func absolute(path string) (string, error) {
	if path == "" {
		return "", errors.New("a path is empty")
	}
	return filepath.Abs(path)
}

// store returns the settings as the node takes them.
func (s *settings) store(at block.Position) (handover.Store, error) {
	if s.kind == kindBolt {
		return handover.Store{Place: handover.Place{Bolt: s.path}, Origin: s.origin}, nil
	}
	if s.etcd.ReadOnly && s.origin != "" {
		return handover.Store{}, at.Property("origin").Errorf("origin: a node that is read_only declares nothing")
	}
	urls := make([]string, len(s.endpoints))
	for i, u := range s.endpoints {
		urls[i] = u.Scheme + "://" + u.Host
	}
	s.etcd.Endpoints = strings.Join(urls, " ")
	if s.mode == strict {
		s.bound = cmp.Or(s.bound, strictBound)
	}
	return handover.Store{
		Place: handover.Place{Etcd: s.etcd}, Origin: s.origin,
		Bound: cmp.Or(s.bound, bestEffortBound), Strict: s.mode == strict,
	}, nil
}
