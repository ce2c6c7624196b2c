package control

import "github.com/postern-link/postern/link"

// fill is how much of a limit a change takes.
type fill struct {
	name          string  // a word of a fixed set, for the metric
	what          string  // as people read it, such as "endpoints of a network"
	of            link.ID // which one
	before, after int
	limit         int
}

// fills are the limits that a verdict comes near.
type fills []fill

// take notes what a change takes of a limit, and returns a [*LimitError] where that is more than the
// limit. What is over a limit already, since the limit was lowered, may stay and shrink.
func (f *fills) take(t fill) error {
	if t.after > t.limit && t.after > t.before {
		return &LimitError{What: t.what, Limit: t.limit}
	}
	if mark := (t.limit*highMark + 99) / 100; t.before < mark && t.after >= mark {
		*f = append(*f, t)
	}
	return nil
}

// warn says once for each crossing that little of a limit is left.
func (c *Control) warn(near fills) {
	for _, f := range near {
		c.metrics.near.WithLabelValues(f.name).Inc()
		c.config.Log.Warn("a limit is nearly reached", "what", f.what, "of", f.of, "used", f.after, "limit", f.limit)
	}
}
