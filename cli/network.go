package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var networks = kind{word: "network", typ: "virtualNetworks", rows: func(_ context.Context, _ *client, all []resource) (table, error) {
	t := table{head: []string{"NAME", "GROUP", "PREFIXES", "SUBNETS", "EGRESS"}}
	for _, r := range all {
		var subnets []string
		for _, s := range r.Properties.Subnets {
			subnets = append(subnets, s.Name+"="+s.Properties.Prefix)
		}
		t.row(r.Name, r.group(), words(r.Properties.Space.Prefixes), words(subnets), r.Tags["postern-egress"])
	}
	return t, nil
}}

func (a *app) networkCommand() *cobra.Command {
	return parent("network", "a consumer's address spaces",
		a.listCommand(networks), a.showCommand(networks), a.createNetwork(), a.updateNetwork(), a.deleteCommand(networks, ""))
}

func (a *app) createNetwork() *cobra.Command {
	var n manifestNetwork
	var subnets []string
	c := &cobra.Command{
		Use: "create NAME --prefix PREFIX --subnet NAME=PREFIX", Short: "make a network", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			n.Name = args[0]
			var err error
			if n.Subnets, err = parseSubnets(subnets); err != nil {
				return err
			}
			for name, prefix := range n.Subnets {
				if prefix == "" {
					return usagef("subnet %q: NAME=PREFIX is expected", name)
				}
			}
			return a.applyOne(c.Context(), true, "network", n.Name, func(m, _ *manifest) { m.Networks = []manifestNetwork{n} })
		},
	}
	networkFlags(c.Flags(), &n, &subnets)
	_ = c.MarkFlagRequired("prefix")
	return c
}

// networkFlags are the flags that say what a network is.
func networkFlags(f *pflag.FlagSet, n *manifestNetwork, subnets *[]string) {
	f.StringSliceVar(&n.Prefixes, "prefix", nil, "addresses of its clients")
	f.StringSliceVar(subnets, "subnet", nil, "NAME=PREFIX: parts that endpoints take their addresses from")
	f.StringSliceVar(&n.Egress, "egress", nil, "what it may have endpoints to: *, tenant/NAME, a service's ID or alias (default its own tenant's)")
	f.StringSliceVar(&n.Sites, "site", nil, "SITE=PREFIX: where its clients and endpoints are; DNS prefers endpoints at the client's site")
}

// parseSubnets reads NAME=PREFIX of each; "" is the prefix of one that goes.
func parseSubnets(given []string) (map[string]string, error) {
	all := map[string]string{}
	for _, s := range given {
		name, prefix, ok := strings.Cut(s, "=")
		name = strings.ToLower(name)
		if _, twice := all[name]; !ok || name == "" || twice {
			return nil, usagef("subnet %q: NAME=PREFIX is expected, each name once", s)
		}
		all[name] = prefix
	}
	return all, nil
}

func (a *app) updateNetwork() *cobra.Command {
	var n manifestNetwork
	var subnets []string
	c := &cobra.Command{
		Use: "update NAME", Short: "change what the flags say of a network", Args: usageArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completeNames(networks.typ),
		Long: "Changes what the flags say of a network and leaves the rest. --prefix, --egress and --site give the whole list, \"\"\n" +
			"an empty one; --subnet NAME=PREFIX adds a subnet or changes it, NAME= takes it away, and the others stay. What\n" +
			"endpoints were asked for under another --egress goes on.",
		RunE: func(c *cobra.Command, args []string) error {
			given := c.Flags().Changed
			if err := someFlag(c); err != nil {
				return err
			}
			parts, err := parseSubnets(subnets)
			if err != nil {
				return err
			}
			return a.applyOne(c.Context(), false, "network", args[0], func(m, now *manifest) {
				w := now.network(args[0])
				if given("prefix") {
					w.Prefixes = n.Prefixes
				}
				if given("egress") {
					w.Egress = n.Egress
				}
				if given("site") {
					w.Sites = n.Sites
				}
				w.Subnets = changeSubnets(w.Subnets, parts)
				m.Networks = []manifestNetwork{w}
			})
		},
	}
	networkFlags(c.Flags(), &n, &subnets)
	return c
}

// changeSubnets returns the subnets there are with those that are given, without those whose prefix is "".
func changeSubnets(now, given map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, now)
	for name, prefix := range given {
		all[name] = prefix
		if prefix == "" {
			delete(all, name)
		}
	}
	return all
}

// groupCommand is about resource groups, which others are in.
func (a *app) groupCommand() *cobra.Command {
	var location string
	create := &cobra.Command{
		Use: "create NAME", Short: "make a resource group", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.inSubscriptionGroup(args[0], func(k *client, path string) error {
				var r resource
				_, err := k.do(c.Context(), call{method: http.MethodPut, path: path, version: groupVersion, body: map[string]string{"location": location}}, &r)
				if err != nil {
					return fmt.Errorf("group %s: %w", args[0], err)
				}
				return a.print(r, func() table { return groupTable([]resource{r}) })
			})
		},
	}
	create.Flags().StringVar(&location, "location", "local", "its location, a word of your choice")
	list := &cobra.Command{
		Use: "list", Short: "list the resource groups of the subscription", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.inSubscriptionGroup("", func(k *client, path string) error {
				all, err := list[resource](c.Context(), k, path, groupVersion, nil)
				if err != nil {
					return fmt.Errorf("list groups: %w", err)
				}
				return a.print(all, func() table { return groupTable(all) })
			})
		},
	}
	remove := &cobra.Command{
		Use: "delete NAME", Short: "delete a resource group", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.inSubscriptionGroup(args[0], func(k *client, path string) error {
				return a.each(args, func(string) (string, error) {
					_, err := k.do(c.Context(), call{method: http.MethodDelete, path: path, version: groupVersion}, nil)
					return "deleted", err
				})
			})
		},
	}
	return parent("group", "resource groups, which the other objects are in", list, create, remove)
}

func groupTable(all []resource) table {
	t := table{head: []string{"NAME", "LOCATION"}}
	for _, r := range all {
		t.row(r.Name, r.Location)
	}
	return t
}

// inSubscriptionGroup gives do the path of a resource group, "" for that of all.
func (a *app) inSubscriptionGroup(name string, do func(k *client, path string) error) error {
	k, err := a.dial()
	if err != nil {
		return err
	}
	if _, err := k.inSubscription(networkProvider, ""); err != nil {
		return err
	}
	path := "/subscriptions/" + k.Subscription + "/resourcegroups"
	if name != "" {
		if err := checkSegment("resource group", name); err != nil {
			return err
		}
		path += "/" + name
	}
	return do(k, path)
}
