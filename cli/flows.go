package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// flow is a live connection through the node that is asked.
type flow struct {
	ID         string `json:"id"`
	Node       string `json:"node"`
	Endpoint   string `json:"endpoint"`
	Service    string `json:"service"`
	LinkID     uint32 `json:"linkId"`
	Source     string `json:"source,omitempty"`
	Local      string `json:"local,omitempty"`
	Protocol   string `json:"protocol,omitempty"`
	Target     string `json:"target,omitempty"`
	ServerName string `json:"serverName,omitempty"`
	State      string `json:"state"`
	Started    string `json:"started"`
	Sent       uint64 `json:"sent"`
	Received   uint64 `json:"received"`
}

// limitUse is one limit and how much of it is used.
type limitUse struct {
	Name    string `json:"name"`
	Object  string `json:"object"`
	Current int    `json:"currentValue"`
	Limit   int    `json:"limit"`
	High    bool   `json:"high,omitempty"`
}

func (a *app) flowsCommand() *cobra.Command {
	return listed(a, "flows", "list the live connections through the node that is asked", "flows", func(all []flow) table {
		t := table{head: []string{"SOURCE", "PROTOCOL", "ENDPOINT", "SERVICE", "NAME", "TARGET", "STATE", "SENT", "RECEIVED", "SINCE"}}
		for _, f := range all {
			t.row(f.Source, f.Protocol, last(f.Endpoint), last(f.Service), f.ServerName, f.Target, f.State,
				strconv.FormatUint(f.Sent, 10), strconv.FormatUint(f.Received, 10), seconds(f.Started))
		}
		return t
	})
}

func (a *app) usageCommand() *cobra.Command {
	return listed(a, "usage", "say how much of each limit is used", "usages", func(all []limitUse) table {
		t := table{head: []string{"LIMIT", "OF", "USED", "ALLOWED", ""}}
		for _, u := range all {
			mark := ""
			if u.High {
				mark = "80 % reached"
			}
			t.row(u.Name, u.Object, strconv.Itoa(u.Current), strconv.Itoa(u.Limit), mark)
		}
		return t
	})
}

// listed is a command that prints a list of the subscription.
func listed[T any](a *app, word, about, typ string, show func([]T) table) *cobra.Command {
	return &cobra.Command{
		Use: word, Short: about, Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := a.dial()
			if err != nil {
				return err
			}
			path, err := k.inSubscription(posternProvider, typ)
			if err != nil {
				return err
			}
			all, err := list[T](c.Context(), k, path, posternVersion, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", word, err)
			}
			return a.print(all, func() table { return show(all) })
		},
	}
}
