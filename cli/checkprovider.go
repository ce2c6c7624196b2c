package cli

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-link/postern/cli/frontend"
	"github.com/postern-link/postern/link"
)

// checkFlags are those of check-provider.
type checkFlags struct {
	name, other, path, expect, header string
	linkID                            uint32
	insecure                          bool
	timeout                           time.Duration
}

func (a *app) checkProviderCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use: "check-provider HOST:PORT --name NAME --other NAME", Args: usageArgs(cobra.ExactArgs(1)),
		Short: "try whether your own front end holds a client to the name that it was let in for",
		Long: "Connects to your own front end, where NAME and the other name are of two of your customers, as a client\n" +
			"that Postern let in for NAME and that wants the other one's site: by Host, by HTTP/2, by a session, by a second\n" +
			"hello, by a PROXY header of its own. docs/providers.md explains each item and what to do.\n\n" +
			"What the front end must do for an item to pass: refuse, or answer with the first site.",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := a.checkConfig(args[0], f)
			if err != nil {
				return err
			}
			r, err := frontend.Check(c.Context(), cfg)
			if errors.Is(err, frontend.ErrUnreachable) {
				return &unreachable{err}
			}
			if err != nil {
				return fmt.Errorf("check-provider: %w", err)
			}
			if err := a.print(r, func() table {
				t := table{head: []string{"ITEM", "VERDICT", "SEEN", "DO"}}
				for _, i := range r.Items {
					t.row(i.Name, string(i.Verdict), i.Seen, i.Do)
				}
				return t
			}); err != nil {
				return err
			}
			switch r.Verdict {
			case frontend.Fail:
				return &failedItems{ExitFailed}
			case frontend.Unknown:
				return &failedItems{ExitUnavailable}
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.name, "name", "", "name of a customer, which the client was let in for")
	flags.StringVar(&f.other, "other", "", "name of another customer, out of the client's reach")
	flags.StringVar(&f.path, "path", "/", "what is requested of both")
	flags.StringVar(&f.expect, "expect-other", "", "text that the other customer's site has and the first one's hasn't")
	flags.StringVar(&f.header, "proxy-protocol", "off", "header that the front end expects of Postern: off, v1, v2, azure, aws or gcp")
	flags.Uint32Var(&f.linkID, "link-id", 1, "link ID in that header, decimal")
	flags.BoolVar(&f.insecure, "insecure", false, "don't verify the certificates of the two sites")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "bound of each connection")
	_ = c.MarkFlagRequired("name")
	_ = c.MarkFlagRequired("other")
	return c
}

// checkConfig reads what is to be checked.
func (a *app) checkConfig(addr string, f checkFlags) (cfg frontend.Config, err error) {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return cfg, usagef("address %q: HOST:PORT is expected", addr)
	}
	cfg = frontend.Config{Addr: addr, Path: f.path, Expect: f.expect, Insecure: f.insecure, Timeout: f.timeout, Header: link.ProxyProtocol(f.header)}
	if cfg.Name, err = link.ParseName(f.name); err != nil {
		return cfg, usagef("name: %w", err)
	}
	if cfg.Other, err = link.ParseName(f.other); err != nil {
		return cfg, usagef("other name: %w", err)
	}
	if cfg.Name == cfg.Other {
		return cfg, usagef("--name and --other are the same: names of two customers are needed")
	}
	switch cfg.Header {
	case link.ProxyOff, link.ProxyV1, link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP:
	default:
		return cfg, usagef("PROXY protocol %q: off, v1, v2, azure, aws and gcp are allowed", f.header)
	}
	cfg.LinkID = link.LinkID(f.linkID)
	if !strings.HasPrefix(f.path, "/") || strings.ContainsFunc(f.path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return cfg, usagef("path %q: a slash and visible ASCII are expected", f.path)
	}
	if f.timeout < 100*time.Millisecond || f.timeout > time.Minute {
		return cfg, usagef("timeout %s: 100ms to 1m are allowed", f.timeout)
	}
	conn, err := connection{CA: a.flags.CA}.tls()
	if err != nil {
		return cfg, err
	}
	cfg.Roots = conn.RootCAs
	return cfg, nil
}
