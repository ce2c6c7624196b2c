package linkservice

import (
	"fmt"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
)

// probe parses the words of a probe: its kind, and what it asks.
func probe(args []string) (p link.Probe, err error) {
	if p.Kind, err = block.Word(args[0], link.ProbeTCP, link.ProbeTLS, link.ProbeHTTP); err != nil {
		return p, err
	}
	switch words := args[1:]; p.Kind {
	case link.ProbeTCP:
		if len(words) > 0 {
			return p, fmt.Errorf("tcp is followed by nothing, not by %s", block.Quote(words[0]))
		}
		return link.Probe{}, nil // the default
	case link.ProbeTLS:
		if len(words) > 1 {
			return p, fmt.Errorf("tls is followed by one name, not by %s too", block.Quote(words[1]))
		}
		if len(words) == 1 {
			p.Name, err = block.Name(words[0])
		}
		return p, err
	}
	if len(args) == 1 {
		return p, fmt.Errorf("http needs a path, such as %q", "http /health")
	}
	p.Path = args[1]
	if err := link.CheckProbePath(p.Path); err != nil {
		return p, block.Plain(err)
	}
	if len(args) == 3 {
		p.Status, err = block.Int(args[2], 200, 599)
	}
	return p, err
}
