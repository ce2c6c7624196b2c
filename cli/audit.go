package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// auditEntry is what tables show of an entry.
type auditEntry struct {
	Revision uint64 `json:"revision"`
	At       string `json:"at"`
	Actor    string `json:"actor"`
	From     string `json:"from"`
	Action   string `json:"action"`
	Object   string `json:"object"`
	Reason   string `json:"reason"`
	Result   string `json:"result"`

	raw json.RawMessage
}

// UnmarshalJSON implements [json.Unmarshaler].
func (e *auditEntry) UnmarshalJSON(text []byte) error {
	type plain auditEntry
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	*e = auditEntry(p)
	e.raw = append(json.RawMessage(nil), text...)
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (e auditEntry) MarshalJSON() ([]byte, error) { return e.raw, nil }

func (a *app) auditCommand() *cobra.Command {
	return parent("audit", "who did what, when, from where, and what was refused", a.auditList(), a.auditVerify(), a.auditExport())
}

func (a *app) auditList() *cobra.Command {
	var since, until, actor, object, action string
	var top int
	var whole bool
	c := &cobra.Command{
		Use: "list", Short: "list the newest entries that concern the subscription", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			query := url.Values{"$top": {strconv.Itoa(top)}}
			for name, v := range map[string]string{"actor": actor, "object": object, "action": action} {
				if v != "" {
					query.Set(name, v)
				}
			}
			for name, v := range map[string]string{"since": since, "until": until} {
				if v == "" {
					continue
				}
				at, err := moment(v, time.Now())
				if err != nil {
					return usagef("--%s: %v", name, err)
				}
				query.Set(name, at.UTC().Format(time.RFC3339Nano))
			}
			k, err := a.dial()
			if err != nil {
				return err
			}
			path := "/providers/" + posternProvider + "/auditEntries"
			if !whole {
				if path, err = k.inSubscription(posternProvider, "audit"); err != nil {
					return err
				}
			}
			all, err := list[auditEntry](c.Context(), k, path, posternVersion, query)
			if err != nil {
				return fmt.Errorf("audit: %w", err)
			}
			return a.print(all, func() table {
				t := table{head: []string{"REVISION", "TIME", "ACTOR", "FROM", "ACTION", "OBJECT", "RESULT", "REASON"}}
				for _, e := range all {
					t.row(strconv.FormatUint(e.Revision, 10), seconds(e.At), e.Actor, e.From, e.Action, e.Object, e.Result, e.Reason)
				}
				return t
			})
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "", "not before a time, such as 2026-11-01T12:00:00Z, or a while ago, such as 24h")
	f.StringVar(&until, "until", "", "before a time, or until a while ago")
	f.StringVar(&actor, "actor", "", "by one who acts")
	f.StringVar(&object, "object", "", "on an object, KIND/ID, or *END for those that end so")
	f.StringVar(&action, "action", "", "of one action, such as connection.approve")
	f.IntVar(&top, "top", 100, "at most so many, the newest")
	f.BoolVar(&whole, "all", false, "the whole record (operator)")
	return c
}

// moment reads a time, or how long ago it was.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%q is neither a time such as 2026-11-01T12:00:00Z nor a duration such as 24h", s)
	}
	return t, nil
}

func (a *app) auditVerify() *cobra.Command {
	var state, file, expect string
	c := &cobra.Command{
		Use: "verify", Short: "recompute the chain of the whole record and print its head (operator)", Args: usageArgs(cobra.NoArgs),
		Long: "Recomputes the SHA-256 chain of the whole audit record: an entry that was changed, dropped or put in breaks it.\n" +
			"Who can write the state can also write a new record with a chain of its own: so keep the head that is printed\n" +
			"elsewhere, and give it with --expect. The lines come from the API, from a state file, or from an export.",
		RunE: func(c *cobra.Command, _ []string) error {
			if state != "" && file != "" {
				return usagef("--state and --file: give one")
			}
			v := &verifier{}
			if expect != "" {
				h, err := parseHead(expect)
				if err != nil {
					return err
				}
				v.expect = &h
			}
			lines, err := a.auditLines(c.Context(), state, file)
			if err != nil {
				return err
			}
			for l, err := range lines {
				if err == nil {
					err = v.next(l)
				}
				if err != nil {
					return fmt.Errorf("audit verify: %w", err)
				}
			}
			if err := v.end(); err != nil {
				return fmt.Errorf("audit verify: %w", err)
			}
			result := struct {
				Entries int    `json:"entries"`
				Head    string `json:"head"`
			}{v.lines, v.at.String()}
			return a.print(result, func() table {
				t := table{}
				t.row("entries", strconv.Itoa(result.Entries))
				t.row("head", result.Head)
				return t
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "a state file that no node has open")
	c.Flags().StringVar(&file, "file", "", "what \"audit export\" has written, - for stdin")
	c.Flags().StringVar(&expect, "expect", "", "a head that was printed before, HEX@REVISION: the record must go on from it")
	return c
}

func (a *app) auditExport() *cobra.Command {
	var state, out string
	c := &cobra.Command{
		Use: "export", Short: "write the whole record, a line of JSON each, as \"audit verify --file\" reads it (operator)", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			lines, err := a.auditLines(c.Context(), state, "")
			if err != nil {
				return err
			}
			w := a.Stdout
			if out != "" && out != "-" {
				f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return err
				}
				return errors.Join(writeLines(f, lines), f.Sync(), f.Close())
			}
			return writeLines(w, lines)
		},
	}
	c.Flags().StringVar(&state, "state", "", "from a state file that no node has open")
	c.Flags().StringVar(&out, "file", "", "a new file to write to (default stdout)")
	return c
}

func writeLines(w io.Writer, lines iter.Seq2[Line, error]) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b) // base64: nothing in it needs an escape
	for l, err := range lines {
		if err != nil {
			return fmt.Errorf("audit export: %w", err)
		}
		if err := e.Encode(l); err != nil {
			return fmt.Errorf("audit export: %w", err)
		}
	}
	return b.Flush()
}

// auditLines yields the lines of the record: of a state file, of an export, or from the API.
func (a *app) auditLines(ctx context.Context, state, file string) (iter.Seq2[Line, error], error) {
	switch {
	case state != "":
		if a.Lines == nil {
			return nil, usagef("--state: this program reads no state files")
		}
		return a.Lines(ctx, state)
	case file == "-":
		return exported(a.Stdin), nil
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		return func(yield func(Line, error) bool) {
			defer f.Close()
			exported(f)(yield)
		}, nil
	}
	k, err := a.dial()
	if err != nil {
		return nil, err
	}
	return k.auditLines(ctx), nil
}

// exported reads what an export has written.
func exported(r io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		d := json.NewDecoder(bufio.NewReader(r))
		for {
			var l Line
			err := d.Decode(&l)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				err = fmt.Errorf("exported record: %w", err)
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}

// auditLines reads the record from the API, page by page.
func (k *client) auditLines(ctx context.Context) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for from := uint64(1); ; {
			var page struct {
				Value []Line `json:"value"`
			}
			err := k.get(ctx, "/providers/"+posternProvider+"/auditLines", posternVersion, value("from", strconv.FormatUint(from, 10)), &page)
			if err != nil {
				yield(Line{}, err)
				return
			}
			if len(page.Value) == 0 {
				return
			}
			for _, l := range page.Value {
				if !yield(l, nil) {
					return
				}
			}
			next := page.Value[len(page.Value)-1].Revision + 1
			if next <= from {
				yield(Line{}, fmt.Errorf("%w: entry %d comes after %d", errBroken, next-1, from))
				return
			}
			from = next
		}
	}
}
