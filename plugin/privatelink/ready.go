package privatelink

// Ready implements the interface of CoreDNS's ready plugin: it reports whether there is a snapshot to
// answer from that is fresh enough, with the network of the server block in it, or the objects of the block's
// Corefile where it is new, and whether the servers that it passes queries on to don't ask it again.
func (p *Privatelink) Ready() bool {
	s := p.Snapshot()
	if turn := p.before.Load(); s != nil && turn != nil && !turn.at(s) && p.as(turn.before().asked(p.places, p.zone)) == nil {
		return false
	}
	return s != nil && p.Stale(false) == "" && (p.network == "" || s.Network(p.network) != nil) && p.Upstream.ready()
}
