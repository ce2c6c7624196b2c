package control

// Usage is one limit and how much of it is used.
type Usage struct {
	Name    string `json:"name"`   // such as "endpointsPerNetwork"
	Object  string `json:"object"` // of what, "kind id"
	Current int    `json:"currentValue"`
	Limit   int    `json:"limit"`
}

// Usage returns how much of each limit a subscription uses.
func (c *Control) Usage(caller Caller, subscription string) ([]Usage, error) {
	panic("unfinished")
}
