package link

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseProbe reads a probe as users write it everywhere: "tcp", "tls", "tls NAME", "http PATH" or "http PATH STATUS". No
// words are the zero [Probe], and so is "tcp". The error wraps [ErrInvalid].
func ParseProbe(s string) (p Probe, err error) {
	words := strings.Fields(s)
	if len(words) == 0 {
		return p, nil
	}
	p.Kind, words = ProbeKind(words[0]), words[1:]
	many := func(most int) error {
		if len(words) > most {
			return fmt.Errorf("%w: probe %q: a word too many", ErrInvalid, clip(s))
		}
		return nil
	}
	switch p.Kind {
	case ProbeTCP:
		return Probe{}, many(0)
	case ProbeTLS:
		if err = many(1); err == nil && len(words) > 0 {
			p.Name, err = ParseName(words[0])
		}
	case ProbeHTTP:
		if len(words) == 0 {
			return Probe{}, fmt.Errorf("%w: probe http needs a path, such as %q", ErrInvalid, "http /health")
		}
		p.Path = words[0]
		if len(words) > 1 {
			if p.Status, err = strconv.Atoi(words[1]); err != nil || p.Status == 0 {
				return Probe{}, fmt.Errorf("%w: status %q of an HTTP probe, %d to %d are allowed", ErrInvalid, clip(words[1]), minProbeStatus, mostProbeStatus)
			}
		}
		err = many(2)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Probe{}, err
	}
	return p, nil
}

// String returns the words of a probe as [ParseProbe] reads them; "tcp" for the zero one.
func (p Probe) String() string {
	switch p.Kind {
	case "", ProbeTCP:
		return string(ProbeTCP)
	case ProbeTLS:
		return strings.TrimSuffix(string(p.Kind)+" "+string(p.Name), " ")
	}
	s := string(p.Kind) + " " + p.Path
	if p.Status != 0 {
		s += " " + strconv.Itoa(p.Status)
	}
	return s
}
