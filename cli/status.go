package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// nodeStatus is how the node that is asked is.
type nodeStatus struct {
	Node      string  `json:"node"`
	Version   string  `json:"version"`
	Build     string  `json:"build"`
	Revision  uint64  `json:"revision"`
	Freshness string  `json:"freshness"`
	Age       float64 `json:"ageSeconds"`
	Networks  int     `json:"networks"`
	Services  int     `json:"services"`
	Endpoints int     `json:"endpoints"`
	Flows     int     `json:"flows"`

	TargetNames []nameStatus `json:"targetNames,omitempty"`
	NamesInAll  int          `json:"namesInAll,omitempty"`
}

// nameStatus is where a name of targets leads on that node.
type nameStatus struct {
	Service   string            `json:"service"`
	Target    string            `json:"target"`
	Addresses []string          `json:"addresses"`
	Refused   map[string]string `json:"refused,omitempty"`
	Age       float64           `json:"ageSeconds"`
	Error     string            `json:"error,omitempty"`
}

// leads says where the name leads, what is wrong with it in brackets.
func (n *nameStatus) leads() string {
	said := []string{strings.Join(n.Addresses, " ")}
	if len(n.Addresses) == 0 {
		said = []string{"nowhere"}
	}
	if n.Error != "" && len(n.Addresses) > 0 {
		said = append(said, fmt.Sprintf("(last found %.0f s ago: %s)", n.Age, n.Error))
	} else if n.Error != "" {
		said = append(said, "("+n.Error+")")
	}
	for _, a := range slices.Sorted(maps.Keys(n.Refused)) {
		said = append(said, fmt.Sprintf("(%s refused: %s)", a, n.Refused[a]))
	}
	return strings.Join(said, " ")
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "say how the node that is asked is (operator)", Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := a.dial()
			if err != nil {
				return err
			}
			var s nodeStatus
			if err := k.get(c.Context(), "/providers/"+posternProvider+"/status", posternVersion, nil, &s); err != nil {
				return fmt.Errorf("status: %w", err)
			}
			return a.print(s, func() table {
				t := table{}
				t.row("node", s.Node)
				t.row("version", s.Version)
				t.row("build", s.Build)
				t.row("revision", strconv.FormatUint(s.Revision, 10))
				t.row("view", fmt.Sprintf("%s, confirmed %.1f s ago", s.Freshness, s.Age))
				t.row("networks", strconv.Itoa(s.Networks))
				t.row("services", strconv.Itoa(s.Services))
				t.row("endpoints", strconv.Itoa(s.Endpoints))
				t.row("flows", strconv.Itoa(s.Flows))
				for _, n := range s.TargetNames {
					t.row("target of "+n.Service, n.Target+" leads to "+n.leads())
				}
				if more := s.NamesInAll - len(s.TargetNames); more > 0 {
					t.row("targets", fmt.Sprintf("%d more that are names", more))
				}
				return t
			})
		},
	}
}
