package control

// fill is how much of a limit a change takes.
type fill struct {
	name          string // a word of a fixed set, for the metric
	what          string // as people read it, such as "endpoints of network x"
	before, after int
	limit         int
}

// fills are the limits that a verdict comes near.
type fills []fill

// take notes that a change makes before to after, and returns a [*LimitError] where that is more than the
// limit. What is over a limit already, since the limit was lowered, may stay and shrink.
func (f *fills) take(name, what string, before, after, limit int) error {
	if after > limit && after > before {
		return &LimitError{What: what, Limit: limit}
	}
	if mark := (limit*highMark + 99) / 100; before < mark && after >= mark {
		*f = append(*f, fill{name, what, before, after, limit})
	}
	return nil
}

// warn says once for each crossing that little of a limit is left.
func (c *Control) warn(near fills) {
	for _, f := range near {
		c.metrics.near.WithLabelValues(f.name).Inc()
		c.config.Log.Warn("a limit is nearly reached", "what", f.what, "used", f.after, "limit", f.limit)
	}
}
