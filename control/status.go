package control

import (
	"context"
	"io"
	"runtime"
)

// Status is how a node is.
type Status struct {
	Node      string  `json:"node"`
	Version   string  `json:"version"`
	Build     string  `json:"build"`     // platform and Go version that it was built for and with
	Revision  uint64  `json:"revision"`  // of the newest state that it has
	Freshness string  `json:"freshness"` // fresh, late, stale, expired
	Age       float64 `json:"ageSeconds"`
	Networks  int     `json:"networks"`
	Services  int     `json:"services"`
	Endpoints int     `json:"endpoints"`
	Flows     int     `json:"flows"` // live ones
	// TargetNames are names that services have targets by, of at most 100, those that something is wrong with first;
	// NamesInAll is how many there are.
	TargetNames []NameStatus `json:"targetNames,omitempty"`
	NamesInAll  int          `json:"namesInAll,omitempty"`
}

// Status says how this node is, to an operator.
func (c *Control) Status(caller Caller) (Status, error) {
	if err := operator(caller, "the status of the node"); err != nil {
		return Status{}, err
	}
	s, err := c.view()
	if err != nil {
		return Status{}, err
	}
	view := c.observed().view
	st := Status{
		Node: c.config.Node, Version: c.config.Version, Build: runtime.GOOS + "/" + runtime.GOARCH + ", " + runtime.Version(), Revision: s.Revision(), Freshness: view.Worst().String(), Age: view.Age.Seconds(),
	}
	for range s.Networks() {
		st.Networks++
	}
	for range s.Services() {
		st.Services++
	}
	for range s.Endpoints() {
		st.Endpoints++
	}
	if c.config.Flows != nil {
		for range c.config.Flows {
			st.Flows++
		}
	}
	st.TargetNames, st.NamesInAll = c.nameStatus(s)
	return st, nil
}

// Backup returns what writes the state of one moment, for an operator: what ReadBackup of package store reads.
func (c *Control) Backup(caller Caller) (func(ctx context.Context, w io.Writer) error, error) {
	if err := c.overseer(caller, "a backup"); err != nil {
		return nil, err
	}
	return c.config.Store.Backup, nil
}
