package privatelink

// Ready implements the interface of CoreDNS's ready plugin: it reports whether there is a snapshot to
// answer from, with the network of the server block in it.
func (p *Privatelink) Ready() bool {
	s := p.Snapshot()
	return s != nil && (p.network == "" || s.Network(p.network) != nil)
}
