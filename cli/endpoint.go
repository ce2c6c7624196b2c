package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var endpoints = kind{word: "endpoint", typ: "privateEndpoints", rows: func(ctx context.Context, k *client, all []resource) (table, error) {
	t := table{head: []string{"NAME", "GROUP", "NETWORK", "ADDRESS", "SERVICE", "STATE", "DESCRIPTION"}}
	addresses, err := k.addresses(ctx, all)
	if err != nil {
		return t, err
	}
	for _, r := range all {
		c := r.connection()
		t.row(r.Name, r.group(), r.network(), addresses[strings.ToLower(r.ID)], short(c.Properties.Service), c.Properties.State.Status, c.Properties.State.Description)
	}
	return t, nil
}}

// addresses returns the address of each endpoint by its ID in lower case: it is that of its network interface.
func (k *client) addresses(ctx context.Context, all []resource) (map[string]string, error) {
	found := map[string]string{}
	for _, r := range all {
		for _, i := range r.Properties.Interfaces {
			var nic resource
			err := k.get(ctx, i.ID, networkVersion, nil, &nic)
			var api *apiError
			if errors.As(err, &api) && api.status == http.StatusNotFound {
				continue // the endpoint is gone meanwhile
			}
			if err != nil {
				return nil, fmt.Errorf("address of endpoint %s: %w", r.Name, err)
			}
			for _, c := range nic.Properties.Configurations {
				found[strings.ToLower(r.ID)] = c.Properties.Address
			}
		}
	}
	return found, nil
}

func (a *app) endpointCommand() *cobra.Command {
	return parent("endpoint", "addresses in a consumer's network that stand for a service",
		a.listCommand(endpoints), a.showCommand(endpoints), a.createEndpoint(), a.updateEndpoint(), a.deleteCommand(endpoints, ""), a.askAgain())
}

func (a *app) createEndpoint() *cobra.Command {
	var e manifestEndpoint
	c := &cobra.Command{
		Use: "create NAME --network NETWORK --subnet SUBNET --service SERVICE", Short: "ask for an endpoint", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			e.Name = args[0]
			err := a.applyOne(c.Context(), true, "endpoint", e.Name, func(m, _ *manifest) { m.Endpoints = []manifestEndpoint{e} })
			if err != nil || a.output != "table" {
				return err
			}
			k, r, err := a.one(c.Context(), endpoints, e.Name)
			if err != nil {
				return err
			}
			return a.show(c.Context(), k, endpoints, r, []resource{r})
		},
	}
	f := c.Flags()
	f.StringVar(&e.Network, "network", "", "the network that it is in: a name of the same group, or an ID")
	f.StringVar(&e.Subnet, "subnet", "", "the subnet that its address is taken from")
	f.StringVar(&e.Service, "service", "", "what it stands for: a service of the same group, an ID, or an alias")
	f.StringVar(&e.Address, "address", "", "its address (default a free one)")
	allowFlag(f, &e.Allow)
	f.StringVar(&e.Message, "message", "", "words to the provider, who decides")
	for _, name := range []string{"network", "subnet", "service"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

func allowFlag(f *pflag.FlagSet, to *[]string) {
	f.StringSliceVar(to, "allow", nil, "prefixes of the clients that may connect (default those of the network)")
}

// updateEndpoint changes what can be changed of an endpoint. What it stands for, where it is and its address make it
// what the provider has decided on: for another one it is made anew.
func (a *app) updateEndpoint() *cobra.Command {
	var allow []string
	c := &cobra.Command{
		Use: "update NAME --allow PREFIX", Short: "change who may connect to an endpoint", Args: usageArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completeNames(endpoints.typ),
		Long: "Changes which clients of the network may connect to an endpoint: --allow gives the whole list, \"\" an empty one,\n" +
			"with which all may. Live flows of those that may no longer end.",
		RunE: func(c *cobra.Command, args []string) error {
			if err := someFlag(c); err != nil {
				return err
			}
			return a.applyOne(c.Context(), false, "endpoint", args[0], func(m, now *manifest) {
				w := now.endpoint(args[0])
				w.Allow = allow
				m.Endpoints = []manifestEndpoint{w}
			})
		},
	}
	allowFlag(c.Flags(), &allow)
	return c
}

func (a *app) askAgain() *cobra.Command {
	var message string
	c := &cobra.Command{
		Use: "ask-again NAME...", Short: "make Disconnected connections new requests, with the same addresses", Args: usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: a.completeNames(endpoints.typ),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := a.dial()
			if err != nil {
				return err
			}
			return a.each(args, func(name string) (string, error) {
				path, err := k.inGroup(posternProvider, endpoints.typ, name, "askAgain")
				if err != nil {
					return "", err
				}
				var r resource
				body := map[string]string{"requestMessage": message}
				_, err = k.do(c.Context(), call{method: http.MethodPost, path: path, version: posternVersion, body: body}, &r)
				return "asked again", err
			})
		},
	}
	c.Flags().StringVar(&message, "message", "", "words to the provider, who decides")
	return c
}
