package coremain

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/postern-link/postern/cli"
	"github.com/postern-link/postern/node"
	"github.com/postern-link/postern/store/bolt"
)

// client runs a command that speaks to the control API, or says that there is no such command.
func client(args []string, stdout, stderr io.Writer) int {
	env := cli.Env{Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, Getenv: os.Getenv, Lines: stateLines}
	for _, c := range commands() {
		if c.name != "help" {
			env.Local = append(env.Local, cli.Local{Name: c.name, Usage: c.usage, About: c.about})
		}
	}
	return cli.Main(args, env)
}

// stateLines opens the audit record of a state file for [cli.Env].
func stateLines(ctx context.Context, path string) (func(yield func(cli.Line, error) bool), error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err // opening it would make a new one
	}
	if running(node.Place{Bolt: path}) {
		return nil, fmt.Errorf("a node has %s open: ask it, or verify a copy", path)
	}
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, err
	}
	return func(yield func(cli.Line, error) bool) {
		more := true
		for l, err := range s.Lines(ctx, 1) {
			if more = yield(cli.Line{Revision: l.Revision, Bytes: l.Bytes}, err); !more || err != nil {
				more = false
				break
			}
		}
		if err := s.Close(); err != nil && more {
			yield(cli.Line{}, err)
		}
	}, nil
}
