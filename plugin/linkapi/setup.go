// Package linkapi is the directive that serves the control API: Azure Resource Manager's wire format over
// TLS, for the SDKs and command lines of Azure and for our own.
package linkapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linkapi"

func init() { plugin.Register(name, setup) }

// settings are what one directive says. Paths are absolute.
type settings struct {
	Listen     netip.AddrPort
	Cert, Key  string // "": a certificate is made
	ClientCA   string // "": the authorities of the identities alone
	Identities string
	URL        *url.URL       // nil: what clients say
	Resolver   netip.AddrPort // for the proof of domains; zero: the system's
	Rate       int            // requests a second of an identity; 0: the default
	Expire     time.Duration  // of requests that nobody decides on; 0: never
	Limits     control.Limits
}

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var s settings
		at, err := block.Parse(c, s.directive())
		if err != nil {
			return err
		}
		if s.Identities == "" {
			return at.Errorf("identities FILE is missing: nobody could sign in; %s", firstIdentities("identities.json"))
		}
		if err := s.checkFiles(at); err != nil {
			return err
		}
		if err := draft.SetAPI(at, s.Listen, newServer(s, draft)); err != nil {
			return err
		}
	}
	return nil
}

// firstIdentities says how to make a file.
func firstIdentities(path string) string {
	return fmt.Sprintf("\"postern token --file %s init\" makes one, and \"postern token --file %s create NAME --tenant operator --role owner\" who can sign in", path, path)
}

// checkFiles refuses files that aren't there, naming the path (C12). They are only looked at.
func (s *settings) checkFiles(at block.Position) error {
	for _, f := range []struct{ property, path string }{{"tls", s.Cert}, {"tls", s.Key}, {"client_ca", s.ClientCA}, {"identities", s.Identities}} {
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && f.property == "identities":
			return at.Property(f.property).Errorf("%s isn't there; %s", f.path, firstIdentities(f.path))
		case err != nil:
			return at.Property(f.property).Errorf("%w", err)
		case info.IsDir():
			return at.Property(f.property).Errorf("%s is a directory", f.path)
		}
	}
	return nil
}

func (s *settings) directive() block.Directive {
	file := func(to *string) func([]string) error {
		return func(args []string) (err error) {
			*to, err = filepath.Abs(args[0])
			return err
		}
	}
	return block.Directive{
		Name: name, Usage: "ADDR:PORT", Min: 1, Max: 1,
		Set: func(args []string) (err error) {
			s.Listen, err = block.AddrPort(args[0])
			return err
		},
		Properties: []block.Property{
			{Name: "tls", Usage: "CERT KEY", Min: 2, Max: 2, Set: func(args []string) error {
				return errors.Join(file(&s.Cert)(args[:1]), file(&s.Key)(args[1:]))
			}},
			{Name: "client_ca", Usage: "FILE", Min: 1, Max: 1, Set: file(&s.ClientCA)},
			{Name: "identities", Usage: "FILE", Min: 1, Max: 1, Set: file(&s.Identities)},
			{Name: "url", Usage: "URL", Min: 1, Max: 1, Set: s.setURL},
			{Name: "resolver", Usage: "ADDR[:PORT]", Min: 1, Max: 1, Set: s.setResolver},
			{Name: "rate", Usage: "N", Min: 1, Max: 1, Set: func(args []string) (err error) {
				s.Rate, err = block.Int(args[0], 1, 1000000)
				return err
			}},
			{Name: "expire", Usage: "DURATION", Min: 1, Max: 1, Set: func(args []string) (err error) {
				s.Expire, err = block.Duration(args[0], time.Minute, 10*365*24*time.Hour)
				return err
			}},
			{Name: "limit", Usage: "NAME N", Min: 2, Max: 2, Repeat: true, Set: s.setLimit},
		},
	}
}

func (s *settings) setURL(args []string) error {
	u, err := url.Parse(args[0])
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return fmt.Errorf("%s is not where clients reach the API; one looks like https://postern.example:8443, and it is always https", block.Quote(args[0]))
	}
	s.URL = u
	return nil
}

func (s *settings) setResolver(args []string) (err error) {
	if a, err := block.Addr(args[0]); err == nil {
		s.Resolver = netip.AddrPortFrom(a, 53)
		return nil
	}
	s.Resolver, err = block.AddrPort(args[0])
	return err
}

// limits are the figures of [control.Limits] by the name that a Corefile has for them, which is that of the
// API's list of usages.
func (s *settings) limits() map[string]*int {
	l := &s.Limits
	return map[string]*int{
		"networks": &l.Networks, "subnets": &l.Subnets, "endpointsPerNetwork": &l.EndpointsPerNetwork,
		"services": &l.Services, "endpointsPerService": &l.EndpointsPerService, "nat": &l.NAT,
		"visibility": &l.Visibility, "autoApproval": &l.AutoApproval, "zones": &l.Zones,
		"recordSets": &l.RecordSets, "linksPerZone": &l.LinksPerZone, "pendingPerConsumer": &l.PendingPerConsumer,
		"namesPerService": &l.NamesPerService, "targetsPerService": &l.TargetsPerService,
		"restingLinkIDs": &l.RestingLinkIDs,
	}
}

func (s *settings) setLimit(args []string) error {
	to := s.limits()[args[0]]
	if to == nil {
		return fmt.Errorf("%s is no limit; known are %s", block.Quote(args[0]), limitNames())
	}
	if *to != 0 {
		return fmt.Errorf("%s is given already", args[0])
	}
	n, err := block.Int(args[1], 1, 10000000)
	*to = n
	return err
}
