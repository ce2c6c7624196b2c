package coremain

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/postern-link/postern/proxy/budget"
)

// options are the flags of the server that aren't variables of Caddy or CoreDNS.
type options struct {
	conf, logFormat  string
	sandbox          string // auto, on or off
	plugins, version bool
}

// serverFlags returns the flags that users of CoreDNS know.
func serverFlags(stderr io.Writer) (*flag.FlagSet, *options) {
	o := &options{}
	f := flag.NewFlagSet("postern", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.conf, "conf", "", "Corefile to load, or \"stdin\" (default \"Corefile\")")
	f.StringVar(&o.logFormat, "log-format", "text", "format of the log: text or json")
	f.StringVar(&o.sandbox, "sandbox", sandboxAuto, "keep the process to the files that it needs: auto, as far as the kernel can and with a warning\n"+
		"where privileges are left; on, refuse to start where something is missing or left; off")
	f.BoolVar(&o.plugins, "plugins", false, "list the directives and end")
	f.BoolVar(&o.version, "version", false, "show the version and end")
	f.BoolVar(&dnsserver.Quiet, "quiet", false, "print nothing at the start")
	f.StringVar(&caddy.PidFile, "pidfile", "", "file to write the process ID to")
	f.StringVar(&dnsserver.Port, "dns.port", dnsserver.DefaultPort, "port of server blocks that name none")
	f.StringVar(&dnsserver.Port, "p", dnsserver.DefaultPort, "short for -dns.port")
	return f, o
}

// serve runs the server until a signal ends it. The exit code is 0 after an orderly end, 1 where the
// start was refused, 2 for wrong use, 4 where something failed while it was ended.
func serve(args []string, stdout, stderr io.Writer) int {
	flags, o := serverFlags(stderr)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "postern: unexpected argument %q; \"postern help\" says what is allowed\n", flags.Arg(0))
		return 2
	}
	if err := Setup(); err != nil {
		fmt.Fprintf(stderr, "postern: %v\n", err)
		return 1
	}
	switch {
	case o.version:
		fmt.Fprint(stdout, banner())
		return 0
	case o.plugins:
		for _, d := range directives {
			fmt.Fprintln(stdout, d)
		}
		return 0
	}
	if err := checkSandbox(o.sandbox); err != nil {
		fmt.Fprintf(stderr, "postern: %v\n", err)
		return 2
	}
	if err := logTo(stdout, o.logFormat); err != nil {
		fmt.Fprintf(stderr, "postern: %v\n", err)
		return 2
	}
	return start(o, stderr)
}

// logTo sends what CoreDNS, Caddy and we log to w.
func logTo(w io.Writer, format string) error {
	if format != "text" {
		if err := clog.Configure(format, w); err != nil {
			return err
		}
	}
	clog.SetOutput(w)
	if !clog.IsJSON() {
		log.SetFlags(0) // the collector of the log has a clock
	}
	return nil
}

// start loads the Corefile, starts the server and follows signals until the end.
func start(o *options, stderr io.Writer) int {
	before, err := receiveEstate()
	if err != nil {
		return fail(stderr, err)
	}
	kept := receiveKept(os.Getenv)
	if before == nil {
		before = kept.estate()
	}
	refuse := func(err error) int {
		before.fail(err)
		fmt.Fprintln(stderr, err)
		return 1
	}
	l, err := newLoader(o.conf)
	if err != nil {
		return refuse(fmt.Errorf("postern: %w", err))
	}
	in, c, err := l.read()
	if err != nil {
		return refuse(err)
	}
	m, err := newManager(before.manager())
	if err != nil {
		clog.Warningf("%v", err)
	}
	if err := l.confine(c, o.sandbox, before.rules()); err != nil {
		return refuse(fmt.Errorf("postern: %w", err))
	}
	budget.Find().Soften(0)
	caddy.SetDefaultCaddyfileLoader("postern", l)
	tuneHeap()
	r := newRunner(l, m)
	begin := func() error { _, err := caddy.Start(in); return err }
	if before != nil {
		begin = func() error { return before.follow(in, len(allUses(c, "proxyproto")) == 0) }
	}
	if err := r.start(begin); err != nil {
		return refuse(l.because(explain(err, c)))
	}
	if before != nil {
		if err := unfit(); err != nil && before.fail(err) { // where the other one has ended, nobody else serves
			return fail(stderr, err)
		}
		before.ready()
	}
	m.forget(kept.names)
	if !dnsserver.Quiet {
		// Through the log, so that it has the log's format.
		clog.Infof("%s-%s", Name, Version())
	}
	warn(c)
	code := r.run()
	for _, f := range caddy.OnProcessExit {
		f() // removes the pid file
	}
	return code
}

// fail reports an error that has no place in a Corefile and returns exit code 1.
func fail(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "postern: %v\n", err)
	return 1
}
