package privatelink

// Ready implements the interface of CoreDNS's ready plugin: it reports whether there is a snapshot to
// answer from.
func (p *Privatelink) Ready() bool { return p.Snapshot() != nil }
