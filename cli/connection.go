package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// connected is a connection at its service, as the provider sees it.
type connected struct {
	resource
	service string // its name
	path    string // of the connection
}

func (a *app) connectionCommand() *cobra.Command {
	return parent("connection", "what the endpoints of consumers have with a service: requests and links",
		a.listConnections(), a.showConnection(),
		a.decision("approve", "approve connections", "approved", decide("Approved")),
		a.decision("reject", "reject connections; live flows end", "rejected", decide("Rejected")),
		a.decision("suspend", "stop approved connections until they are resumed; live flows end", "suspended", act("suspend")),
		a.decision("resume", "let suspended connections go on", "resumed", act("resume")),
		a.decision("remove", "remove connections; the endpoints stay, Disconnected", "removed", (*client).remove))
}

func (a *app) listConnections() *cobra.Command {
	var service, status string
	c := &cobra.Command{
		Use: "list", Short: "list the connections of the group's services, or of the subscription's", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := a.dial()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(append(states, ""), func(s string) bool { return strings.EqualFold(s, status) }) {
				return usagef("state %q: %s are allowed", status, strings.Join(states, ", "))
			}
			all, err := k.connections(c.Context(), service)
			if err != nil {
				return err
			}
			found := []connected{}
			for _, c := range all {
				if c.in(status) {
					found = append(found, c)
				}
			}
			return a.printConnections(found)
		},
	}
	c.Flags().StringVar(&service, "service", "", "of one service")
	c.Flags().StringVar(&status, "state", "", "in one state: "+strings.Join(states, ", "))
	_ = c.RegisterFlagCompletionFunc("service", a.completeNames(services.typ))
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// states are those that connections are listed by. A suspended one is Approved as well.
var states = []string{"Pending", "Approved", "Rejected", "Suspended"}

// in reports whether a connection is in a state, "" for any.
func (c *connected) in(status string) bool {
	return status == "" || strings.EqualFold(c.Properties.State.Status, status) || c.Properties.Suspended && strings.EqualFold(status, "Suspended")
}

func (a *app) showConnection() *cobra.Command {
	var service string
	c := &cobra.Command{
		Use: "show NAME", Short: "show one connection", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := a.dial()
			if err != nil {
				return err
			}
			one, err := k.find(c.Context(), service, args[0])
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.print(one.resource, nil)
			}
			return a.printConnections([]connected{one})
		},
	}
	c.Flags().StringVar(&service, "service", "", "the service that it is of")
	return c
}

func (a *app) printConnections(all []connected) error {
	raw := make([]resource, len(all))
	for i := range all {
		raw[i] = all[i].resource
	}
	return a.print(raw, func() table {
		t := table{head: []string{"SERVICE", "NAME", "STATE", "LINK ID", "ENDPOINT", "DESCRIPTION"}}
		for _, c := range all {
			p := c.Properties
			status := p.State.Status
			if p.Lasting {
				status += " (lasting)"
			}
			t.row(c.service, c.Name, status, p.LinkID, short(p.Endpoint.ID), p.State.Description)
		}
		return t
	})
}

// connections reads the connections of one service, or of all of the group or subscription.
func (k *client) connections(ctx context.Context, service string) ([]connected, error) {
	var from []resource
	if service != "" {
		path, err := k.inGroup(networkProvider, services.typ, service)
		if err != nil {
			return nil, err
		}
		from = make([]resource, 1)
		if err := k.get(ctx, path, networkVersion, nil, &from[0]); err != nil {
			return nil, fmt.Errorf("service %s: %w", service, err)
		}
	} else {
		path, err := k.typeList(services.typ)
		if err != nil {
			return nil, err
		}
		if from, err = list[resource](ctx, k, path, networkVersion, nil); err != nil {
			return nil, fmt.Errorf("list services: %w", err)
		}
	}
	var all []connected
	for _, s := range from {
		for _, c := range s.Properties.Connections {
			all = append(all, connected{c, s.Name, c.ID})
		}
	}
	return all, nil
}

// find reads one connection: by its ID, as SERVICE/NAME, or as NAME of the service. NAME may be that of
// the endpoint, which the connection's begins with, where only one has it.
func (k *client) find(ctx context.Context, service, name string) (found connected, err error) {
	at := *k
	if id, ok := parseResourceID(name); ok {
		if len(id.names) != 4 || !strings.EqualFold(id.names[0], services.typ) || !strings.EqualFold(id.names[2], "privateEndpointConnections") {
			return found, usagef("%s isn't the ID of a connection of a service", name)
		}
		at.Subscription, at.Group, service, name = id.subscription, id.group, id.names[1], id.names[3]
	} else if s, n, ok := strings.Cut(name, "/"); ok {
		if service != "" && !strings.EqualFold(service, s) {
			return found, usagef("%s isn't of service %s", name, service)
		}
		service, name = s, n
	}
	if service == "" {
		return found, usagef("connection %s: give its ID, SERVICE/NAME, or --service", name)
	}
	if err := checkSegment("connection", name); err != nil {
		return found, err
	}
	all, err := at.connections(ctx, service)
	if err != nil {
		return found, err
	}
	var begins []connected
	for _, c := range all {
		switch {
		case strings.EqualFold(c.Name, name):
			return c, nil
		case len(c.Name) > len(name) && c.Name[len(name)] == '.' && strings.EqualFold(c.Name[:len(name)], name):
			begins = append(begins, c)
		}
	}
	switch len(begins) {
	case 0:
		return found, fmt.Errorf("connection %s of service %s: %w", name, service, errNotFound)
	case 1:
		return begins[0], nil
	}
	return found, fmt.Errorf("connection %s of service %s: %d connections begin with it; name one whole", name, service, len(begins))
}

// said is what comes with a decision.
type said struct {
	reason  string
	lasting bool  // of an approval
	dry     *plan // where nothing is to be done: what would be; nil: it is done
}

// send sends a decision, or asks what it would do.
func (w said) send(k *client, ctx context.Context, c call) error {
	if w.dry == nil {
		_, err := k.do(ctx, c, nil)
		return err
	}
	c.query = url.Values{"dryRun": {"true"}}
	_, err := k.do(ctx, c, w.dry)
	return err
}

// decision is a command that does one thing to many connections.
func (a *app) decision(word, about, done string, do func(k *client, ctx context.Context, c connected, w said) error) *cobra.Command {
	var service string
	var w said
	var pending, dry bool
	c := &cobra.Command{
		Use: word + " NAME...", Short: about,
		Long: strings.ToUpper(about[:1]) + about[1:] + ".\n\n" +
			"NAME is the ID of a connection, SERVICE/NAME, or NAME with --service. The name of its endpoint will do\n" +
			"where it is the only one. What became of each is printed; the exit code is 0 if all were done.",
		RunE: func(c *cobra.Command, args []string) error {
			if pending == (len(args) > 0) {
				return usagef("%s: give names, or --all-pending with --service", c.CommandPath())
			}
			k, err := a.dial()
			if err != nil {
				return err
			}
			known := map[string]connected{}
			if pending {
				if service == "" {
					return usagef("--all-pending takes --service")
				}
				all, err := k.connections(c.Context(), service)
				if err != nil {
					return err
				}
				for _, c := range all {
					if c.Properties.State.Status == "Pending" {
						args = append(args, c.service+"/"+c.Name)
						known[args[len(args)-1]] = c
					}
				}
			}
			find := func(name string) (connected, error) {
				if one, ok := known[name]; ok {
					return one, nil
				}
				return k.find(c.Context(), service, name)
			}
			if dry {
				return a.eachDry(args, func(name string, p *plan) error {
					one, err := find(name)
					if err != nil {
						return err
					}
					return do(k, c.Context(), one, said{w.reason, w.lasting, p})
				})
			}
			return a.each(args, func(name string) (string, error) {
				one, err := find(name)
				if err != nil {
					return "", err
				}
				return one.outcome(word, done), do(k, c.Context(), one, w)
			})
		},
	}
	c.Flags().StringVar(&service, "service", "", "the service that they are of")
	dryRunFlag(c, &dry)
	c.Flags().StringVar(&w.reason, "reason", "", "words to the consumer, and for the audit")
	_ = c.RegisterFlagCompletionFunc("service", a.completeNames(services.typ))
	if word == "approve" || word == "reject" {
		c.Flags().BoolVar(&pending, "all-pending", false, "all that wait for a decision")
	}
	if word == "approve" {
		c.Flags().BoolVar(&w.lasting, "lasting", false, "approve later changes of the service's targets and names too; a rejection ends it")
	}
	return c
}

// outcome is what is said of a decision that is done, on a connection as it was before.
func (c *connected) outcome(word, done string) string {
	switch {
	case word == "resume" && !c.Properties.Suspended:
		return "was not suspended"
	case word == "suspend" && c.Properties.Suspended:
		return "was suspended already"
	case word == "approve" && c.Properties.Suspended:
		return "approved; it stays suspended until it is resumed"
	}
	return done
}

// decide approves or rejects. The decision is about what was read: if the connection has changed since, it
// is refused.
func decide(status string) func(k *client, ctx context.Context, c connected, w said) error {
	return func(k *client, ctx context.Context, c connected, w said) error {
		properties := map[string]any{"privateLinkServiceConnectionState": map[string]string{
			"status": status, "description": w.reason, "actionsRequired": "None"}}
		if w.lasting {
			properties["lasting"] = true
		}
		return w.send(k, ctx, c.call(http.MethodPut, networkVersion, w.reason, map[string]any{"properties": properties}))
	}
}

func (k *client) remove(ctx context.Context, c connected, w said) error {
	return w.send(k, ctx, c.call(http.MethodDelete, networkVersion, w.reason, nil))
}

// act does what Azure has no operation for.
func act(word string) func(k *client, ctx context.Context, c connected, w said) error {
	return func(k *client, ctx context.Context, c connected, w said) error {
		call := c.call(http.MethodPost, posternVersion, w.reason, map[string]string{"reason": w.reason})
		id, ok := parseResourceID(c.path)
		if !ok || len(id.names) != 4 {
			return fmt.Errorf("the API names the connection %s, which is no ID", c.path)
		}
		at := connection{Subscription: id.subscription, Group: id.group}
		path, err := (&client{connection: at}).inGroup(posternProvider, append(id.names, word)...)
		if err != nil {
			return err
		}
		call.path = path
		return w.send(k, ctx, call)
	}
}

// call is a request about the connection as it was read.
func (c connected) call(method, version, reason string, body any) call {
	r := call{method: method, path: c.path, version: version, body: body, header: map[string]string{}}
	if c.Etag != "" {
		r.header["If-Match"] = c.Etag
	}
	if reason != "" {
		r.header["Postern-Reason"] = headerText(reason)
	}
	return r
}

// headerText is a text as a header can carry it: on one line, ASCII.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
