package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-link/postern/control"
	"github.com/postern-link/postern/control/identity"
)

func (a *app) tokenCommand() *cobra.Command {
	var file string
	c := parent("token", "who may sign in: edits the identities file on this machine",
		a.tokenInit(&file), a.tokenCreate(&file), a.tokenList(&file), a.tokenRevoke(&file))
	c.PersistentFlags().StringVar(&file, "file", "", "the identities file (default POSTERN_IDENTITIES, else identities.json)")
	c.Long = "Edits the identities file of docs/identities.md. Running nodes read it again by themselves."
	return c
}

// identities returns the file that is meant.
func (a *app) identities(flag string) string {
	if flag == "" {
		flag = a.Getenv("POSTERN_IDENTITIES")
	}
	if flag == "" {
		flag = "identities.json"
	}
	return flag
}

func (a *app) tokenInit(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "write a first file: the operator's tenant with one subscription and nobody in it", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			path := a.identities(*file)
			err := identity.Init(path)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already", path)
			}
			if err == nil {
				a.say("%s: written; now \"postern token create NAME --tenant operator --role owner\"", path)
			}
			return err
		},
	}
}

func (a *app) tokenCreate(file *string) *cobra.Command {
	var tenant string
	var roles []string
	var expires time.Duration
	var asClient bool
	c := &cobra.Command{
		Use: "create IDENTITY", Short: "make a token, or a secret for az and Terraform, and print it once", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Makes a token for an identity and prints it; the file keeps its digest only. An identity that isn't there is made:\n" +
			"it takes a tenant and roles. With --client it is a client ID and secret, as az and Terraform sign in with.",
		RunE: func(c *cobra.Command, args []string) error {
			h := identity.Holder{Identity: args[0], Tenant: tenant}
			for _, r := range roles {
				g, err := grant(r)
				if err != nil {
					return err
				}
				h.Roles = append(h.Roles, g)
			}
			if expires < 0 {
				return usagef("--expires %s: not in the past", expires)
			}
			if expires > 0 {
				h.Expires = time.Now().Add(expires)
			}
			create := identity.CreateToken
			if asClient {
				create = identity.CreateClient
			}
			made, err := create(c.Context(), a.identities(*file), h)
			if errors.Is(err, identity.ErrNotFound) {
				return fmt.Errorf("%w: %w", errNotFound, err)
			}
			if err != nil {
				return err
			}
			return a.printCreated(made)
		},
	}
	f := c.Flags()
	f.StringVar(&tenant, "tenant", "", "the tenant of a new identity")
	f.StringSliceVar(&roles, "role", nil, "a role of a new identity, ROLE or ROLE@SUBSCRIPTION (default all subscriptions of its tenant)")
	f.DurationVar(&expires, "expires", 0, "when it ends, such as 720h (default never)")
	f.BoolVar(&asClient, "client", false, "a client ID and secret")
	return c
}

// grant reads ROLE or ROLE@SUBSCRIPTION.
func grant(s string) (control.Grant, error) {
	role, sub, ok := strings.Cut(s, "@")
	if !ok {
		sub = "*"
	}
	g := control.Grant{Subscription: strings.ToLower(sub), Role: control.Role(strings.ToLower(role))}
	if g.Role.Rights() == 0 || sub == "" {
		return g, usagef("role %q: owner, network, provider, approver or reader is expected, with @SUBSCRIPTION behind it for one alone", s)
	}
	return g, nil
}

// printCreated prints a credential: with nothing else to a token's reader, so that it can be piped into a file.
func (a *app) printCreated(c identity.Created) error {
	v := struct {
		ID       string `json:"id"`
		ClientID string `json:"clientId,omitempty"`
		Secret   string `json:"secret"`
	}{c.ID, c.ClientID, c.Secret}
	return a.print(v, func() table {
		t := table{}
		if c.ClientID == "" {
			t.row(c.Secret)
			return t
		}
		t.row("client ID", c.ClientID)
		t.row("secret", c.Secret)
		return t
	})
}

func (a *app) tokenList(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the ways to sign in; no secrets", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			all, err := identity.List(a.identities(*file))
			if err != nil {
				return err
			}
			type shown struct {
				Identity string   `json:"identity"`
				Tenant   string   `json:"tenant"`
				Roles    []string `json:"roles"`
				Method   string   `json:"method"`
				ID       string   `json:"id"`
				ClientID string   `json:"clientId,omitempty"`
				Created  string   `json:"created,omitempty"`
				Expires  string   `json:"expires,omitempty"`
			}
			list := []shown{}
			for _, l := range all {
				s := shown{l.Identity, l.Tenant, []string{}, l.Method, l.ID, l.ClientID, date(l.Created), date(l.Expires)}
				for _, g := range l.Roles {
					s.Roles = append(s.Roles, string(g.Role)+"@"+g.Subscription)
				}
				list = append(list, s)
			}
			return a.print(list, func() table {
				t := table{head: []string{"IDENTITY", "TENANT", "ROLES", "METHOD", "ID", "CREATED", "EXPIRES"}}
				for _, s := range list {
					t.row(s.Identity, s.Tenant, words(s.Roles), s.Method, s.ID, s.Created, s.Expires)
				}
				return t
			})
		},
	}
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (a *app) tokenRevoke(file *string) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "revoke IDENTITY [ID]", Short: "take a token or secret out of the file, or with --all the identity", Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			id := ""
			if all == (len(args) == 2) {
				return usagef("give the ID of one token or secret, as \"postern token list\" prints it, or --all")
			}
			if !all {
				id = args[1]
			}
			gone, err := identity.Revoke(c.Context(), a.identities(*file), args[0], id)
			switch {
			case errors.Is(err, identity.ErrNotFound):
				return fmt.Errorf("%w: %w", errNotFound, err)
			case err != nil:
				return err
			case gone:
				a.say("%s: revoked; the identity is gone, it had no other way to sign in", args[0])
			default:
				a.say("%s: revoked", args[0])
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "the whole identity")
	return c
}
