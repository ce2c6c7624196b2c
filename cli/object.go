package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// kind is one type of Microsoft.Network as the commands name it.
type kind struct {
	word, typ string
	rows      func(ctx context.Context, k *client, all []resource) (table, error)
	// detail is the table of one; nil: its row.
	detail func(r *resource) table
}

// listCommand lists a kind.
func (a *app) listCommand(k kind) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the " + k.word + "s of the group, or without one of the subscription", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := a.dial()
			if err != nil {
				return err
			}
			path, err := cl.typeList(k.typ)
			if err != nil {
				return err
			}
			all, err := list[resource](c.Context(), cl, path, networkVersion, nil)
			if err != nil {
				return fmt.Errorf("list %ss: %w", k.word, err)
			}
			return a.show(c.Context(), cl, k, all, all)
		},
	}
}

// showCommand shows one.
func (a *app) showCommand(k kind) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "show one " + k.word, Args: usageArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completeNames(k.typ),
		RunE: func(c *cobra.Command, args []string) error {
			cl, r, err := a.one(c.Context(), k, args[0])
			if err != nil {
				return err
			}
			if k.detail != nil && a.output == "table" {
				return k.detail(&r).write(a.Stdout)
			}
			return a.show(c.Context(), cl, k, r, []resource{r})
		},
	}
}

// one reads the resource of a name.
func (a *app) one(ctx context.Context, k kind, name string) (*client, resource, error) {
	var r resource
	cl, err := a.dial()
	if err != nil {
		return nil, r, err
	}
	path, err := cl.inGroup(networkProvider, k.typ, name)
	if err != nil {
		return nil, r, err
	}
	if err := cl.get(ctx, path, networkVersion, nil, &r); err != nil {
		return nil, r, fmt.Errorf("%s %s: %w", k.word, name, err)
	}
	return cl, r, nil
}

// show prints resources; the table may take requests of its own.
func (a *app) show(ctx context.Context, cl *client, k kind, v any, all []resource) error {
	if a.output != "table" {
		return a.print(v, nil)
	}
	t, err := k.rows(ctx, cl, all)
	if err != nil {
		return err
	}
	return t.write(a.Stdout)
}

// deleteCommand deletes some of a kind. force, if it isn't nil, makes the query that closes what is in the way.
func (a *app) deleteCommand(k kind, force string) *cobra.Command {
	forced, dry := false, false
	c := &cobra.Command{
		Use: "delete NAME...", Short: "delete " + k.word + "s", Args: usageArgs(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completeNames(k.typ),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := a.dial()
			if err != nil {
				return err
			}
			query := url.Values{}
			if forced {
				query.Set("force", "true")
			}
			if dry {
				query.Set("dryRun", "true")
				return a.eachDry(args, func(name string, p *plan) error {
					path, err := cl.inGroup(networkProvider, k.typ, name)
					if err == nil {
						_, err = cl.do(c.Context(), call{method: http.MethodDelete, path: path, version: networkVersion, query: query}, p)
					}
					return err
				})
			}
			return a.each(args, func(name string) (string, error) {
				path, err := cl.inGroup(networkProvider, k.typ, name)
				if err != nil {
					return "", err
				}
				status, err := cl.do(c.Context(), call{method: http.MethodDelete, path: path, version: networkVersion, query: query}, nil)
				if err == nil && status == http.StatusNoContent {
					return "was not there", nil
				}
				return "deleted", err
			})
		},
	}
	dryRunFlag(c, &dry)
	if force != "" {
		c.Flags().BoolVar(&forced, "force", false, force)
	}
	return c
}

// itemResult is what became of one of several items.
type itemResult struct {
	Item   string `json:"item"`
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// each does one thing to several items and prints what became of each. The exit code is that of the errors
// where they agree, else [ExitError].
func (a *app) each(items []string, do func(item string) (string, error)) error {
	results := make([]itemResult, 0, len(items))
	code := ExitDone
	for _, item := range items {
		r := itemResult{Item: item}
		result, err := do(item)
		if err != nil {
			r.Error = err.Error()
			if now := exitCode(err); code == ExitDone || code == now {
				code = now
			} else {
				code = ExitError
			}
		} else {
			r.Result = result
		}
		results = append(results, r)
	}
	if a.output != "table" {
		if err := a.print(results, nil); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			if r.Error != "" {
				fmt.Fprintf(a.Stderr, "postern: %s: %s\n", line(r.Item), line(r.Error))
			} else {
				fmt.Fprintf(a.Stdout, "%s: %s\n", line(r.Item), line(r.Result))
			}
		}
	}
	if code != ExitDone {
		return &failedItems{code}
	}
	return nil
}

// completeNames completes the names of a type, as far as the API answers.
func (a *app) completeNames(typ string) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		cl, err := a.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		path, err := cl.inGroup(networkProvider, typ)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		all, err := list[resource](c.Context(), cl, path, networkVersion, nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, r := range all {
			if segment.MatchString(r.Name) { // a shell will see it
				names = append(names, r.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
