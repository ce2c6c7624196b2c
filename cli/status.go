package cli

import (
	"fmt"
	"strconv"

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
				return t
			})
		},
	}
}
