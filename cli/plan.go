package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// plan is what a manifest would do or has done.
type plan struct {
	Changes []struct {
		Object string   `json:"object"`
		Verb   string   `json:"verb"`
		Fields []string `json:"fields,omitempty"`
	} `json:"changes"`
	Begin []plannedName `json:"begin,omitempty"`
	Cease []plannedName `json:"cease,omitempty"`
	Cut   []flow        `json:"cut,omitempty"`
}

type plannedName struct {
	Network   string   `json:"network"`
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
}

func (a *app) planCommand() *cobra.Command {
	return &cobra.Command{
		Use: "plan FILE", Short: "say what \"apply\" would do", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Says which objects the file would change, which names would begin or cease to be answered in which\n" +
			"network, and which live flows of the node that is asked would be cut. Nothing is changed. Policy\n" +
			"programs are not asked: what they would answer a plan doesn't know. FILE is YAML, - is stdin.",
		RunE: func(c *cobra.Command, args []string) error { return a.manifests(c.Context(), "plan", args[0]) },
	}
}

func (a *app) applyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "apply FILE", Short: "make the objects of a file what it says", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Makes the objects of the file what it says, all of a resource group in one change or none. What the file\n" +
			"doesn't name is left alone, or with \"prune: true\" deleted if a file has made it. FILE is YAML, - is stdin.",
		RunE: func(c *cobra.Command, args []string) error { return a.manifests(c.Context(), "apply", args[0]) },
	}
}

// exportCommand prints the objects of a group as a manifest.
func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export", Short: "print the objects of the group as a file for \"apply\"", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := a.dial()
			if err != nil {
				return err
			}
			m, err := k.export(c.Context())
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(a.Stdout, m)
			}
			return printYAML(a.Stdout, m)
		},
	}
}

// export reads the objects of the group.
func (k *client) export(ctx context.Context) (m manifest, err error) {
	path, err := k.inGroup(posternProvider, "manifest")
	if err != nil {
		return m, err
	}
	if err := k.get(ctx, path, posternVersion, nil, &m); err != nil {
		return m, fmt.Errorf("export: %w", k.groupHint(err))
	}
	return m, nil
}

// manifests plans or applies a file.
func (a *app) manifests(ctx context.Context, verb, file string) error {
	k, err := a.dial()
	if err != nil {
		return err
	}
	var text []byte
	if file == "-" {
		text, err = readBounded("stdin", a.Stdin)
	} else {
		text, err = readFile(file)
	}
	if err != nil {
		return err
	}
	all, err := parseManifests(text, k.Subscription, k.Group)
	if err != nil {
		return usageError(fmt.Errorf("%s: %w", file, err))
	}
	plans := make([]plan, 0, len(all))
	for _, m := range all {
		p, err := k.manifest(ctx, verb, m)
		if err != nil {
			err = fmt.Errorf("%s %s, resource group %s: %w", verb, file, m.Group, err)
			if len(plans) > 0 && verb == "apply" {
				err = fmt.Errorf("%w; %d resource groups before it were applied", err, len(plans))
			}
			return err
		}
		plans = append(plans, p)
	}
	return a.printPlans(plans)
}

// groupHint says how to make the resource group, where an error is that there is none.
func (k *client) groupHint(err error) error {
	var api *apiError
	if errors.As(err, &api) && api.code == "ResourceGroupNotFound" {
		return fmt.Errorf("%w; make it with \"postern group create %s\"", err, k.Group)
	}
	return err
}

// manifest plans or applies one manifest.
func (k *client) manifest(ctx context.Context, verb string, m manifest) (p plan, err error) {
	if err := checkSegment("subscription", m.Subscription); err != nil {
		return p, err
	}
	path := "/subscriptions/" + m.Subscription + "/providers/" + posternProvider + "/" + verb
	_, err = k.do(ctx, call{method: http.MethodPost, path: path, version: posternVersion, body: m}, &p)
	return p, err
}

// applyOne applies a manifest of one object, which must not be there yet to be created, and must be to be
// changed. fill puts it into m, knowing the group as it is now.
func (a *app) applyOne(ctx context.Context, create bool, word, name string, fill func(m, now *manifest)) error {
	if err := checkSegment("name", name); err != nil {
		return err
	}
	k, err := a.dial()
	if err != nil {
		return err
	}
	now, err := k.export(ctx)
	if err != nil {
		return err
	}
	switch there := now.has(word, name); {
	case there && create:
		return fmt.Errorf("%s %s: %w", word, name, &apiError{http.StatusConflict, "Exists", "it is there already"})
	case !there && !create:
		return fmt.Errorf("%s %s: %w", word, name, errNotFound)
	}
	m := manifest{Subscription: k.Subscription, Group: k.Group, Once: true}
	fill(&m, &now)
	p, err := k.manifest(ctx, "apply", m)
	if err != nil {
		return fmt.Errorf("%s %s: %w", word, name, err)
	}
	return a.printPlans([]plan{p})
}

// dryRunFlag gives a command the flag to say what it would do.
func dryRunFlag(c *cobra.Command, dry *bool) {
	c.Flags().BoolVar(dry, "dry-run", false, "do nothing; say what would change, and which live flows of the node that is asked would be cut")
}

// eachDry asks for several items what doing them, each by itself, would do, and prints it.
func (a *app) eachDry(items []string, ask func(item string, p *plan) error) error {
	plans := make([]plan, len(items))
	for i, item := range items {
		if err := ask(item, &plans[i]); err != nil {
			return fmt.Errorf("%s: %w", item, err)
		}
	}
	return a.printPlans(plans)
}

// printPlans prints what plans do: "+" is new or begins, "-" goes, "~" changes.
func (a *app) printPlans(plans []plan) error {
	if a.output != "table" {
		if len(plans) == 1 {
			return a.print(plans[0], nil)
		}
		return a.print(plans, nil)
	}
	any := false
	signs := map[string]string{"created": "+", "deleted": "-", "updated": "~"}
	for _, p := range plans {
		for _, c := range p.Changes {
			any = true
			fields := ""
			if len(c.Fields) > 0 {
				fields = " (" + strings.Join(c.Fields, ", ") + ")"
			}
			a.say("%s %s%s", signs[c.Verb], strings.Replace(c.Object, "/", " ", 1), fields)
		}
		for _, n := range p.Begin {
			a.say("+ name %s in network %s: %s", n.Name, n.Network, words(n.Addresses))
		}
		for _, n := range p.Cease {
			a.say("- name %s in network %s: %s", n.Name, n.Network, words(n.Addresses))
		}
		for _, f := range p.Cut {
			a.say("! flow from %s to endpoint %s is cut", f.Source, f.Endpoint)
		}
	}
	if !any {
		a.say("nothing changes")
	}
	return nil
}
