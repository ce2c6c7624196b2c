// Package coremain is the build of Postern: the directives and their order, the plugins that are
// compiled in, name and version, and the command line.
//
// The server is Caddy's runner with CoreDNS's server type, driven from here and not by CoreDNS's own
// coremain, because a Corefile that holds nothing of Postern must be refused, a refused Corefile must
// leave the running one untouched, and a reload by signal must not end the watch of the reload
// plugin. docs/decisions/0001-own-runner.md has the whole reasoning.
package coremain

import (
	"fmt"
	"io"
	"os"

	"github.com/postern-link/postern/cli"
	"github.com/postern-link/postern/policy/external"
)

// Run is the program: it never returns. The same binary launches policy programs.
func Run() {
	external.Launch()
	os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
}

// command is one word of the command line. Its function takes the arguments after the word and
// returns the exit code: 0 done, 1 refused or failed, 2 wrong use.
type command struct {
	name, usage, about string
	run                func(args []string, stdout, stderr io.Writer) int
}

// commands is a function and not a variable because help prints it.
func commands() []command {
	return []command{
		{"validate", "[-conf FILE | FILE]", "check a Corefile without opening a socket or the state", validate},
		{"backup", "[-conf FILE | -state FILE] [-o OUT]", "write the state, of a running node or of a file, to OUT or stdout", backup},
		{"restore", "[-conf FILE | -state FILE] [-replace] IN", "make the state that of a backup; IN may be - for stdin; -replace where there is a state", restore},
		{"upgrade", "[-conf FILE | -state FILE]", "have the binary that is now at the path of the running process take its place, without an interruption", upgradeCommand},
		{"doctor", doctorUsage, "look whether DNS around the node is as it must be: signed zones, loops, resolvers in front", doctor},
		{"zones", "[-conf FILE] [-o table|json] [NAME...]", "print the privatelink zones that are known, or what a name maps to", zones},
		{"version", "", "print the version", func(_ []string, stdout, _ io.Writer) int { fmt.Fprint(stdout, banner()); return 0 }},
		{"help", "[COMMAND]", "print this, or what a command takes", help},
	}
}

// Main runs the command line and returns the exit code. Without a command it is the server, with the
// flags that users of CoreDNS know, and returns when the server has ended.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		for _, c := range commands() {
			if c.name == args[0] {
				return c.run(args[1:], stdout, stderr)
			}
		}
		return client(args, stdout, stderr)
	}
	if len(args) > 0 && cli.IsFlag(args[0]) {
		return client(args, stdout, stderr)
	}
	return serve(args, stdout, stderr)
}

// help prints what the command line takes, or what one command does.
func help(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		return client(append([]string{"help"}, args...), stdout, stderr)
	}
	usage(stdout)
	fmt.Fprint(stdout, "\nCommands of the control API, here and elsewhere (docs/cli.md):\n")
	for _, c := range cli.Commands() {
		fmt.Fprintf(stdout, "  %-12s %s\n", c.Name, c.About)
	}
	return 0
}

// usage prints what the command line takes.
func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: postern [flags]            run the server\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "       postern %-9s %s\n%34s%s\n", c.name, c.usage, "", c.about)
	}
	fmt.Fprint(w, "\nFlags of the server:\n")
	flags, _ := serverFlags(w)
	flags.PrintDefaults()
	fmt.Fprint(w, "\nSignals: TERM and INT stop the server after a drain, a second one at once; QUIT stops it\n"+
		"at once; USR1 loads the Corefile again; USR2 has the binary that is now at its path take its place.\n")
}
