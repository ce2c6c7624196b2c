package link

import "io"

// NewAlias returns a new alias for a service, "NAME.HEX.postern", with 128 bits of random.
// The error is that of random.
func NewAlias(service ID, random io.Reader) (string, error) { panic("unfinished") }
