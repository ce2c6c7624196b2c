package coremain

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"

	"github.com/coredns/caddy"
)

// validate checks a Corefile wholly, without opening a socket or the state: directives are set up,
// which only parses, and no startup callback runs.
func validate(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("postern validate", flag.ContinueOnError)
	f.SetOutput(stderr)
	conf := f.String("conf", "", "Corefile to check (default \"Corefile\")")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if f.NArg() > 1 || f.NArg() == 1 && *conf != "" {
		fmt.Fprintln(stderr, "postern validate: one file is allowed")
		return 2
	}
	if f.NArg() == 1 {
		*conf = f.Arg(0)
	}
	if err := Setup(); err != nil {
		return fail(stderr, err)
	}
	l, err := newLoader(*conf)
	if err != nil {
		return fail(stderr, err)
	}
	log.SetOutput(io.Discard) // plugins talk while they are set up
	c, err := l.validate()
	if err != nil {
		fmt.Fprintln(stderr, explain(err, c).Lint())
		return 1
	}
	for _, w := range warnings(c) {
		fmt.Fprintln(stderr, w.Lint())
	}
	fmt.Fprintf(stdout, "%s: ok (%s)\n", c.path, c.summary())
	return 0
}

// validate reads the Corefile and sets up its directives for nothing.
func (l *loader) validate() (*corefile, error) {
	in, c, err := l.read()
	if err != nil {
		return c, err
	}
	return c, caddy.ValidateAndExecuteDirectives(in, nil, true)
}

// summary counts what a Corefile holds.
func (c *corefile) summary() string {
	s := count(len(c.blocks), "server block")
	for _, d := range []struct{ directive, word string }{
		{"linknetwork", "network"}, {"linkservice", "service"}, {"linkendpoint", "endpoint"},
	} {
		n := 0
		for _, b := range c.blocks {
			n += len(uses(b.Tokens[d.directive], d.directive))
		}
		s += ", " + count(n, d.word)
	}
	return s
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
