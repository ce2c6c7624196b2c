package privatelink

// Ready implements the interface of CoreDNS's ready plugin: it reports whether there is a snapshot to
// answer from that is fresh enough, with the network of the server block in it, and whether the servers that
// it passes queries on to don't ask it again.
func (p *Privatelink) Ready() bool {
	s := p.Snapshot()
	return s != nil && p.Stale(false) == "" && (p.network == "" || s.Network(p.network) != nil) && p.Upstream.ready()
}
