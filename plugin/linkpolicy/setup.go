// Package linkpolicy is the directive that narrows what connections allow: rules, limits, and a program
// that is asked.
package linkpolicy

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
	"github.com/postern-link/postern/policy"
	"github.com/postern-link/postern/policy/external"
)

const name = "linkpolicy"

// Bounds of the time that a program has for one answer, and what it has where nothing is said.
const (
	minTimeout     = 10 * time.Millisecond
	maxTimeout     = 5 * time.Second
	defaultTimeout = 250 * time.Millisecond
)

func init() { plugin.Register(name, setup) }

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var s policy.Set
		var p external.Config
		at, err := block.Parse(c, directive(&s, &p))
		if err != nil {
			return err
		}
		if err := complete(at, &s, &p); err != nil {
			return err
		}
		program := &p
		if p.Path == "" {
			program = nil
		}
		if err := draft.AddPolicy(at, s, program); err != nil {
			return err
		}
	}
	return nil
}

// complete gives what was left out its value, and refuses what doesn't fit together.
func complete(at block.Position, s *policy.Set, p *external.Config) error {
	p.Name = s.Name
	if p.Path == "" {
		for _, of := range []string{"checksum", "user", "ask", "allow", "timeout"} {
			if at.Has(of) {
				return at.Property(of).Errorf("%s is of a program, and there is none; add the line %q", of, "program PATH")
			}
		}
		if len(s.Rules)+len(s.Limits) == 0 && s.Default == policy.Unset {
			return at.Errorf("policy %s says nothing; give it a rule, a default, a limit or a program", s.Name)
		}
		return nil
	}
	if !at.Has("checksum") {
		return at.Property("program").Errorf("the program needs its checksum, so that it runs as it was looked at; add the line %q, which sha256sum prints",
			"checksum sha256:HEX")
	}
	if p.Timeout == 0 {
		p.Timeout = defaultTimeout
	}
	if !at.Has("ask") {
		p.Flows = true
	}
	return nil
}

func directive(s *policy.Set, p *external.Config) block.Directive {
	return block.Directive{
		Name: name, Usage: "NAME", Min: 1, Max: 1,
		Set: func(args []string) error {
			id, err := block.ID(args[0])
			s.Name = string(id)
			return err
		},
		Properties: []block.Property{
			{
				Name: "rule", Usage: "RULE [observe] allow|deny [CONDITION...]", Min: 2, Max: block.Any, Repeat: true,
				Set: func(args []string) error { return addRule(s, args) },
			},
			{
				Name: "default", Usage: "allow|deny [observe]", Min: 1, Max: 2,
				Set: func(args []string) (err error) {
					s.Default, err = parseDefault(args)
					return err
				},
			},
			{
				Name: "limit", Usage: "endpoint|source [flows N] [rate N/s|N/m] [burst N]", Min: 3, Max: 7, Repeat: true,
				Set: func(args []string) error { return addLimit(s, args) },
			},
			{
				Name: "program", Usage: "PATH [ARG...]", Min: 1, Max: block.Any,
				Set: func(args []string) error {
					if !filepath.IsAbs(args[0]) {
						return fmt.Errorf("%s is not an absolute path", block.Quote(args[0]))
					}
					p.Path, p.Args = filepath.Clean(args[0]), args[1:]
					return nil
				},
			},
			{
				Name: "checksum", Usage: "sha256:HEX", Min: 1, Max: 1,
				Set: func(args []string) error { return checksum(p, args[0]) },
			},
			{
				Name: "user", Usage: "NAME", Min: 1, Max: 1,
				Set: func(args []string) error {
					p.User = args[0]
					return nil
				},
			},
			{
				Name: "ask", Usage: "flows|reviews|changes...", Min: 1, Max: 3,
				Set: func(args []string) error { return ask(p, args) },
			},
			{
				Name: "allow", Usage: "network|read PATH...", Min: 1, Max: block.Any, Repeat: true,
				Set: func(args []string) error { return allow(p, args) },
			},
			{
				Name: "timeout", Usage: "DURATION", Min: 1, Max: 1,
				Set: func(args []string) (err error) {
					p.Timeout, err = block.Duration(args[0], minTimeout, maxTimeout)
					return err
				},
			},
		},
	}
}

func parseDefault(args []string) (policy.Default, error) {
	verb, err := block.Word(args[0], "allow", "deny")
	if err != nil {
		return policy.Unset, err
	}
	if len(args) == 2 {
		if _, err := block.Word(args[1], "observe"); err != nil {
			return policy.Unset, err
		}
	}
	switch {
	case verb == "allow" && len(args) == 2:
		return policy.Unset, fmt.Errorf("observe is for what denies: write %q", "default deny observe")
	case verb == "allow":
		return policy.DefaultAllow, nil
	case len(args) == 2:
		return policy.DefaultObserve, nil
	}
	return policy.DefaultDeny, nil
}

func checksum(p *external.Config, s string) error {
	digits, ok := strings.CutPrefix(s, "sha256:")
	sum, err := hex.DecodeString(digits)
	if !ok || err != nil || len(sum) != len(p.Checksum) {
		return fmt.Errorf("%s is not a checksum; one is sha256: and %d hexadecimal digits", block.Quote(s), 2*len(p.Checksum))
	}
	copy(p.Checksum[:], sum)
	return nil
}

func ask(p *external.Config, args []string) error {
	words, err := block.List(args, func(s string) (string, error) { return block.Word(s, "flows", "reviews", "changes") })
	for _, w := range words {
		switch w {
		case "flows":
			p.Flows = true
		case "reviews":
			p.Reviews = true
		case "changes":
			p.Changes = true
		}
	}
	return err
}

// allow opens the sandbox of the program.
func allow(p *external.Config, args []string) error {
	word, err := block.Word(args[0], "network", "read")
	switch {
	case err != nil:
		return err
	case word == "network" && len(args) > 1:
		return fmt.Errorf("network is all or nothing: it takes no argument")
	case word == "network":
		p.Network = true
		return nil
	case len(args) == 1:
		return fmt.Errorf("read is followed by paths")
	}
	paths, err := block.List(args[1:], func(s string) (string, error) {
		if !filepath.IsAbs(s) {
			return "", fmt.Errorf("%s is not an absolute path", block.Quote(s))
		}
		return filepath.Clean(s), nil
	})
	p.Files = append(p.Files, paths...)
	return err
}
