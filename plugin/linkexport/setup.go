// Package linkexport is the directive that sends flow records and the audit record to receivers elsewhere.
package linkexport

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"

	"github.com/postern-link/postern/export"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linkexport"

// Bounds of the flow records that may wait.
const (
	leastQueue = 512
	mostQueue  = 1 << 20
)

func init() { plugin.Register(name, setup) }

// settings are what one directive says.
type settings struct {
	export.Config
	insecure bool
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
		if err := s.complete(at); err != nil {
			return err
		}
		if err := draft.AddExport(at, s.Config); err != nil {
			return err
		}
	}
	return nil
}

// complete gives what was left out its value, and refuses what doesn't fit together.
func (s *settings) complete(at block.Position) error {
	kind := string(s.Kind)
	switch {
	case at.Has("otlp") && at.Has("webhook"):
		return at.Property("webhook").Errorf("receiver %s is given as otlp at %s; it is one of them", s.Name, at.Property("otlp"))
	case kind == "":
		return at.Errorf("receiver %s has no address; add the line %q or %q", s.Name, "otlp URL", "webhook URL")
	case s.Secret != "" && s.Kind != export.Webhook:
		return at.Property("secret").Errorf("secret signs the bodies of a webhook; otlp knows no signature, use \"token FILE\" or \"tls CERT KEY\"")
	}
	var err error
	if s.URL, err = export.CheckURL(s.Kind, s.URL, s.insecure); err != nil {
		return at.Property(kind).Errorf("%s: %w", kind, err)
	}
	if !at.Has("send") {
		s.Flows, s.Audit = true, true
	}
	switch {
	case !s.Audit && at.Has("position"):
		return at.Property("position").Errorf("position is of the audit record, which this receiver isn't sent")
	case !s.Flows && at.Has("queue"):
		return at.Property("queue").Errorf("queue is of flow records, which this receiver isn't sent")
	}
	if s.Queue == 0 {
		s.Queue = export.DefaultQueue
	}
	s.Agent = "postern/" + caddy.AppVersion
	return s.checkFiles(at)
}

// checkFiles refuses files that aren't there, naming the path (C12). They are only looked at.
func (s *settings) checkFiles(at block.Position) error {
	for _, f := range []struct{ property, path string }{{"secret", s.Secret}, {"token", s.Token}, {"tls_ca", s.CA}, {"tls", s.Cert}, {"tls", s.Key}} {
		if f.path == "" {
			continue
		}
		info, err := os.Stat(f.path)
		if err == nil && info.IsDir() {
			err = errors.New(f.path + " is a directory")
		}
		if err != nil {
			return at.Property(f.property).Errorf("%w", err)
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
	url := func(kind export.Kind) func([]string) error {
		return func(args []string) error { // judged by complete, which knows of insecure
			s.Kind, s.URL = kind, args[0]
			return nil
		}
	}
	return block.Directive{
		Name: name, Usage: "RECEIVER", Min: 1, Max: 1,
		Set: func(args []string) error {
			id, err := block.ID(args[0])
			s.Name = string(id)
			return err
		},
		Properties: []block.Property{
			{Name: "otlp", Usage: "URL", Min: 1, Max: 1, Secret: true, Set: url(export.OTLP)},
			{Name: "webhook", Usage: "URL", Min: 1, Max: 1, Secret: true, Set: url(export.Webhook)},
			{Name: "send", Usage: "flows|audit...", Min: 1, Max: 2, Set: s.setSend},
			{Name: "queue", Usage: "N", Min: 1, Max: 1, Set: func(args []string) (err error) {
				s.Queue, err = block.Int(args[0], leastQueue, mostQueue)
				return err
			}},
			{Name: "secret", Usage: "FILE", Min: 1, Max: 1, Set: file(&s.Secret)},
			{Name: "token", Usage: "FILE", Min: 1, Max: 1, Set: file(&s.Token)},
			{Name: "tls_ca", Usage: "FILE", Min: 1, Max: 1, Set: file(&s.CA)},
			{Name: "tls", Usage: "CERT KEY", Min: 2, Max: 2, Set: func(args []string) error {
				return errors.Join(file(&s.Cert)(args[:1]), file(&s.Key)(args[1:]))
			}},
			{Name: "insecure", Set: func([]string) error {
				s.insecure = true
				return nil
			}},
			{Name: "position", Usage: "FILE", Min: 1, Max: 1, Set: file(&s.Position)},
		},
	}
}

// setSend parses what the receiver gets.
func (s *settings) setSend(args []string) error {
	words, err := block.List(args, func(a string) (string, error) { return block.Word(a, "flows", "audit") })
	for _, w := range words {
		s.Flows, s.Audit = s.Flows || w == "flows", s.Audit || w == "audit"
	}
	return err
}
