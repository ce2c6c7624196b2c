package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

// table is what people get to read.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print prints a value: as JSON or YAML as the API has it, or as the table that show makes of it.
func (a *app) print(v any, show func() table) error {
	switch a.output {
	case "json":
		return printJSON(a.Stdout, v)
	case "yaml":
		return printYAML(a.Stdout, v)
	}
	return show().write(a.Stdout)
}

// write aligns the columns. A cell that has nothing is "-", so that columns can be counted.
func (t table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i, row := range append([][]string{t.head}, t.rows...) {
		if i == 0 && row == nil {
			continue
		}
		for j, cell := range row {
			if cell = line(cell); cell == "" {
				cell = "-"
			}
			if j > 0 {
				cell = "\t" + cell
			}
			if _, err := io.WriteString(tw, cell); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(tw, "\n"); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// seconds returns a time of the API to the second, as people read it.
func seconds(at string) string {
	if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
		return t.UTC().Format(time.RFC3339)
	}
	return at
}

// encode returns a value as JSON.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	return b.Bytes(), nil
}

func printJSON(w io.Writer, v any) error {
	text, err := encode(v)
	if err == nil {
		_, err = w.Write(escapeQuoted(text, false))
	}
	return err
}

// printYAML prints what printJSON would, as YAML.
func printYAML(w io.Writer, v any) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	// JSON is YAML: read so, the order of its fields stays.
	var n yaml.Node
	if err := yaml.Unmarshal(escapeQuoted(text, true), &n); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	plain(&n)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	_, err = w.Write(escapeQuoted(out.Bytes(), true))
	return err
}

// plain takes the braces and quotes of JSON away, except around what needs them: a string that would read
// as something else, or that has what must be escaped.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.ContainsFunc(n.Value, hidden) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// say prints a line about what was done, for people only.
func (a *app) say(format string, args ...any) {
	if a.output == "table" {
		fmt.Fprintln(a.Stdout, line(fmt.Sprintf(format, args...)))
	}
}
