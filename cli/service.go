package cli

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var services = kind{word: "service", typ: "privateLinkServices", detail: serviceDetail, rows: func(_ context.Context, _ *client, all []resource) (table, error) {
	t := table{head: []string{"NAME", "GROUP", "NAMES", "PORT", "CONNECTIONS", "PENDING", "ALIAS"}}
	for _, r := range all {
		pending := 0
		for _, c := range r.Properties.Connections {
			if c.Properties.State.Status == "Pending" {
				pending++
			}
		}
		t.row(r.Name, r.group(), words(r.Properties.FQDNs), servicePort(&r), strconv.Itoa(len(r.Properties.Connections)), strconv.Itoa(pending), r.Properties.Alias)
	}
	return t, nil
}}

// serviceDetail shows one service, a line for each of its fields.
func serviceDetail(r *resource) table {
	p := &r.Properties
	targets := r.Tags["postern-targets"]
	if targets == "" && p.Destination != "" {
		targets = net.JoinHostPort(p.Destination, cmp.Or(r.Tags["postern-port"], defaultPort))
	}
	var frontends []string
	for _, f := range p.Frontends {
		frontends = append(frontends, f.ID)
	}
	t := table{rows: [][]string{
		{"name", r.Name}, {"group", r.group()}, {"names", words(p.FQDNs)}, {"port", servicePort(r)}, {"targets", cmp.Or(targets, words(frontends))},
	}}
	for _, name := range []string{"within", "weights", "balance", "probe", "max-per-target", "warm", "pin", "proxy-protocol", "idle-timeout", "fallback"} {
		if said := r.Tags["postern-"+name]; said != "" {
			t.rows = append(t.rows, []string{name, said})
		}
	}
	t.rows = append(t.rows, [][]string{
		{"visible", words(p.Visibility.Subscriptions)}, {"approve", words(p.AutoApproval.Subscriptions)}, {"reject", r.Tags["postern-reject"]},
		{"connections", strconv.Itoa(len(p.Connections))}, {"alias", p.Alias},
	}...)
	return t
}

// servicePort is the port of a service, with its protocol where that isn't TCP.
func servicePort(r *resource) string {
	port := cmp.Or(r.Tags["postern-port"], defaultPort)
	if protocol := r.Tags["postern-protocol"]; protocol != "" && protocol != "tcp" {
		port += "/" + protocol
	}
	return port
}

// defaultPort is that of a service that says none.
const defaultPort = "443"

func (a *app) serviceCommand() *cobra.Command {
	return parent("service", "what a provider publishes",
		a.listCommand(services), a.showCommand(services), a.createService(), a.updateService(),
		a.deleteCommand(services, "delete a service that has connections: they become Disconnected, and live flows end"))
}

// serviceFlags are the flags that say what a service is.
func serviceFlags(f *pflag.FlagSet, s *manifestService) {
	f.StringSliceVar(&s.Names, "name", nil, "DNS names that are this service")
	f.Uint16Var(&s.Port, "port", 443, "port that endpoints listen on")
	f.StringVar(&s.Protocol, "protocol", "", "tcp or udp (default tcp)")
	f.StringSliceVar(&s.Targets, "target", nil, "backends, ADDRESS:PORT or NAME:PORT")
	f.StringSliceVar(&s.Within, "within", nil, "prefixes that the names of backends may lead to (default what the rules about targets allow)")
	f.StringSliceVar(&s.Sites, "site", nil, "SITE=PREFIX: where backends are; endpoints at a site prefer those there")
	f.StringToIntVar(&s.Weights, "weight", nil, "what backends weigh, ADDRESS:PORT=N or NAME:PORT=N, 0 to 1000; with 0 one gets no new flow (default 1)")
	f.StringVar(&s.Balance, "balance", "", "round-robin, least-connections or source-hash (default round-robin)")
	f.StringVar(&s.Probe, "probe", "", "how a node asks whether a backend answers: tcp, \"tls [NAME]\" or \"http PATH [STATUS]\" (default tcp)")
	f.IntVar(&s.MaxPerTarget, "max-per-target", 0, "flows of a node with one backend, 0 for no bound")
	s.MaxWaiting = new(int)
	f.IntVar(s.MaxWaiting, "max-waiting", 0, "flows of a node that wait for a place at a backend (default as --max-per-target)")
	f.IntVar(&s.Warm, "warm", 0, "connections that a node has ready with each backend while the service is used")
	f.StringVar(&s.WarmAge, "warm-age", "", "how long one of them is of use, 1s to 10m (default 8s)")
	f.StringSliceVar(&s.Visible, "visible", nil, "who may ask: *, tenant/NAME, subscription/ID, or the ID of a network")
	f.StringSliceVar(&s.Approve, "approve", nil, "who of them needs no decision")
	f.StringSliceVar(&s.Reject, "reject", nil, "who may not, whatever the others say")
	f.StringVar(&s.Pin, "pin", "", "tls, postgres, tds, mysql or address (default by port and names)")
	f.StringVar(&s.ProxyProtocol, "proxy-protocol", "", "off, v1, v2, azure, aws or gcp (default off)")
	f.StringSliceVar(&s.NAT, "nat", nil, "addresses that connections to the targets come from")
	f.IntVar(&s.MaxConnections, "max-connections", 0, "approved connections in all, 0 for no bound")
	f.IntVar(&s.MaxPerConsumer, "max-per-consumer", 0, "approved connections of one consumer, 0 for no bound")
	f.StringVar(&s.IdleTimeout, "idle-timeout", "", "when a silent flow ends, such as 300s")
	f.BoolVar(&s.ECHOuter, "ech-outer", false, "let clients send encrypted hellos, held to their outer name")
	f.BoolVar(&s.Strict, "strict", false, "a node that can't confirm its view of the state cuts the flows")
	f.BoolVar(&s.FallbackPublic, "fallback-public", false, "while no backend answers, let DNS pass the names on to their public addresses")
}

func (a *app) createService() *cobra.Command {
	var s manifestService
	c := &cobra.Command{
		Use: "create NAME", Short: "publish a service", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if s.Name = args[0]; !c.Flags().Changed("max-waiting") {
				s.MaxWaiting = nil
			}
			return a.applyOne(c.Context(), true, "service", s.Name, func(m, _ *manifest) { m.Services = []manifestService{s} })
		},
	}
	serviceFlags(c.Flags(), &s)
	return c
}

func (a *app) updateService() *cobra.Command {
	var s manifestService
	c := &cobra.Command{
		Use: "update NAME", Short: "change what the flags say of a service", Args: usageArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completeNames(services.typ),
		Long: "Changes what the flags say of a service and leaves the rest. Another target, name or port, or a weaker pin,\n" +
			"takes approved connections back to Pending, but for those that the approve list covers, that were approved\n" +
			"lastingly, or all if you may approve them yourself.",
		RunE: func(c *cobra.Command, args []string) error {
			if err := someFlag(c); err != nil {
				return err
			}
			return a.applyOne(c.Context(), false, "service", args[0], func(m, now *manifest) {
				m.Services = []manifestService{now.service(args[0]).with(s, c.Flags().Changed)}
			})
		},
	}
	serviceFlags(c.Flags(), &s)
	return c
}

// someFlag returns an error where a command that changes something has no flag that says what.
func someFlag(c *cobra.Command) error {
	some := false
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { some = some || f.Changed })
	if !some {
		return usagef("nothing to change: no flag says what")
	}
	return nil
}

// with returns a service as it is, with what the flags that were given say.
func (s manifestService) with(n manifestService, given func(flag string) bool) manifestService {
	set := func(flag string, to func()) {
		if given(flag) {
			to()
		}
	}
	set("name", func() { s.Names = n.Names })
	set("port", func() { s.Port = n.Port })
	set("protocol", func() { s.Protocol = n.Protocol })
	set("target", func() {
		s.Targets, s.Weights = n.Targets, among(s.Weights, n.Targets)
		if !slices.ContainsFunc(s.Targets, isName) {
			s.Within = nil // which is for names alone
		}
	})
	set("within", func() { s.Within = n.Within })
	set("site", func() { s.Sites = n.Sites })
	set("weight", func() { // of those that are named: who drains one backend leaves the others as they are
		if s.Weights == nil {
			s.Weights = map[string]int{}
		}
		maps.Copy(s.Weights, n.Weights)
	})
	set("balance", func() { s.Balance = n.Balance })
	set("probe", func() { s.Probe = n.Probe })
	set("max-per-target", func() {
		if s.MaxPerTarget = n.MaxPerTarget; s.MaxPerTarget == 0 {
			s.MaxWaiting = nil // nobody waits where there is no bound
		}
	})
	set("max-waiting", func() { s.MaxWaiting = n.MaxWaiting })
	set("warm", func() {
		if s.Warm = n.Warm; s.Warm == 0 {
			s.WarmAge = "" // which is of none
		}
	})
	set("warm-age", func() { s.WarmAge = n.WarmAge })
	set("visible", func() { s.Visible = n.Visible })
	set("approve", func() { s.Approve = n.Approve })
	set("reject", func() { s.Reject = n.Reject })
	set("pin", func() { s.Pin = n.Pin })
	set("proxy-protocol", func() { s.ProxyProtocol = n.ProxyProtocol })
	set("nat", func() { s.NAT = n.NAT })
	set("max-connections", func() { s.MaxConnections = n.MaxConnections })
	set("max-per-consumer", func() { s.MaxPerConsumer = n.MaxPerConsumer })
	set("idle-timeout", func() { s.IdleTimeout = n.IdleTimeout })
	set("ech-outer", func() { s.ECHOuter = n.ECHOuter })
	set("strict", func() { s.Strict = n.Strict })
	set("fallback-public", func() { s.FallbackPublic = n.FallbackPublic })
	return s
}

// among returns the weights of those that are targets: a backend that is taken away takes its weight along.
func among(weights map[string]int, targets []string) map[string]int {
	kept := maps.Clone(weights)
	maps.DeleteFunc(kept, func(target string, _ int) bool {
		return !slices.ContainsFunc(targets, func(t string) bool { return strings.EqualFold(t, target) })
	})
	return kept
}

// isName reports whether a target is no address. Whether it is a name, the server judges.
func isName(target string) bool {
	_, err := netip.ParseAddrPort(target)
	return err != nil
}
