// Package cli is the client side of the command line: the words that talk to the control API of a node,
// wherever it runs. It knows neither store nor data plane; it speaks the API of docs/api.md with an HTTP
// client of its own, and prints tables for people or JSON and YAML for programs.
//
// Whatever a server says may come from somebody else's keyboard: request messages, reasons, names. What is
// printed has no control characters and none that turn the direction of writing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Env is what the commands run in.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Local are commands of the same binary that need no API, for help and completion. They are run by
	// whoever calls [Main], before.
	Local []Local
	// Lines opens the audit record of a state file that no node has open, for "audit verify --state".
	Lines func(ctx context.Context, path string) (func(yield func(Line, error) bool), error)
}

// Local is a command that is run elsewhere.
type Local struct{ Name, Usage, About string }

// Exit codes of [Main].
const (
	ExitDone        = 0
	ExitError       = 1 // anything that has no code of its own; some of several items failed
	ExitUsage       = 2 // wrong words or flags
	ExitNotFound    = 3
	ExitForbidden   = 4 // not signed in, or without the right
	ExitConflict    = 5 // something else is in the way, or has changed meanwhile
	ExitUnavailable = 6 // the API can't be reached, or can't do it now; a check couldn't tell
	ExitFailed      = 7 // a check found what it looks for
)

// Main runs one command and returns its exit code.
func Main(args []string, env Env) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "required flag(s) ") { // of cobra, which has no type for it
		err = usageError(err)
	}
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(env.Stderr, "postern: %s\n", lines(err.Error()))
	}
	return exitCode(err)
}

// Commands returns the commands, in order of their names.
func Commands() []Local {
	a := &app{}
	var all []Local
	for _, c := range a.root().Commands() {
		all = append(all, Local{Name: c.Name(), Usage: strings.TrimPrefix(c.Use, c.Name()), About: c.Short})
	}
	return all
}

// IsFlag reports whether an argument is a flag that all commands here take, which may stand before the command:
// a program that is a server without a command has to tell its flags from these.
func IsFlag(arg string) bool {
	name, _, _ := strings.Cut(arg, "=")
	flags := (&app{}).root().PersistentFlags()
	if long, ok := strings.CutPrefix(name, "--"); ok {
		return flags.Lookup(long) != nil
	}
	return len(arg) > 1 && arg[0] == '-' && flags.ShorthandLookup(arg[1:2]) != nil
}

// app is one run of the command line.
type app struct {
	Env
	flags  connection // as flags give it
	output string     // table, json, yaml
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "postern",
		Short: "Private Link for any network",
		Long: "Without a command, postern is the server: \"postern help\" has its flags.\n" +
			"The commands below speak to the control API of a node.",
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; \"postern help\" lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	root.AddGroup(&cobra.Group{ID: apiGroup, Title: "Commands of the control API:"}, &cobra.Group{ID: localGroup, Title: "Commands of this machine:"})
	a.flags.bind(root.PersistentFlags())
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "what is printed: table, json or yaml")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch a.output {
		case "table", "json", "yaml":
			return nil
		}
		return usagef("output %q: table, json and yaml are allowed", a.output)
	}
	for _, c := range []*cobra.Command{
		a.serviceCommand(), a.endpointCommand(), a.connectionCommand(), a.networkCommand(), a.groupCommand(),
		a.explainCommand(), a.flowsCommand(), a.auditCommand(), a.usageCommand(), a.statusCommand(),
		a.planCommand(), a.applyCommand(), a.exportCommand(),
	} {
		c.GroupID = apiGroup
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{a.tokenCommand(), a.checkProviderCommand()} {
		c.GroupID = localGroup
		root.AddCommand(c)
	}
	root.SetHelpCommand(helpCommand())
	for _, l := range a.Local {
		root.AddCommand(&cobra.Command{
			Use: strings.TrimSpace(l.Name + " " + l.Usage), Short: l.About, GroupID: localGroup,
			DisableFlagParsing: true, Run: func(*cobra.Command, []string) {},
		})
	}
	return root
}

// helpCommand is cobra's, but that a command that there isn't is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "help about a command",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("unknown command %q; \"postern help\" lists them", strings.Join(args, " "))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

const (
	apiGroup   = "api"
	localGroup = "local"
)

// parent is a command that only has others below it.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("unknown command %q; \"%s --help\" lists them", args[0], c.CommandPath())
		}
		return nil
	}, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(children...)
	return c
}

// usageArgs makes what cobra says about arguments a [usageError].
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usagef("%s: %v; the form is %q", c.CommandPath(), err, c.UseLine())
		}
		return nil
	}
}
