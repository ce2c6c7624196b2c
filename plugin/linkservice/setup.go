// Package linkservice is the directive that declares a service: what a provider publishes.
package linkservice

import (
	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

const name = "linkservice"

func init() { plugin.Register(name, setup) }

func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	for c.Next() {
		var s link.Service
		at, err := block.Parse(c, directive(&s))
		if err != nil {
			return err
		}
		if err := complete(at, &s); err != nil {
			return err
		}
		if err := draft.AddService(at, s); err != nil {
			return err
		}
	}
	return nil
}

// complete gives the properties that were left out their values, and refuses what doesn't fit together.
func complete(at block.Position, s *link.Service) error {
	all := writtenOf(s)
	if len(all) == 0 {
		return at.Errorf("service %s has no target; add the line %q", s.ID, "target ADDR:PORT")
	}
	if s.Port == 0 {
		s.Port = all[0].port()
		for _, t := range all[1:] {
			if t.port() != s.Port {
				return at.Property("target").Errorf("targets have the ports %d and %d; say with %q which one endpoints have",
					s.Port, t.port(), "port PORT")
			}
		}
	}
	if len(s.Within) > 0 && len(s.TargetNames) == 0 {
		return at.Property("within").Errorf("within says where names of targets may lead to, and every target is an address")
	}
	if s.Pin == "" {
		s.Pin = link.DefaultPin(s.Protocol, s.Port, len(s.Names))
	}
	if s.Pin != link.PinAddress && len(s.Names) == 0 {
		return at.Property("pin").Errorf("pin %s needs names to hold clients to; add the line %q or say %q", s.Pin, "names NAME...", "pin address")
	}
	if err := link.CheckPinPort(s.Pin, s.Port); err != nil {
		return at.Property("pin").Errorf("%v", err)
	}
	if s.ECHOuter && s.Pin == link.PinAddress {
		return at.Property("ech").Errorf("ech allow is for services that are pinned to names")
	}
	if s.FallbackPublic && len(s.Names) == 0 {
		return at.Property("fallback").Errorf("fallback public needs names; a service without has no public address")
	}
	if s.ProxyProtocol == "" {
		s.ProxyProtocol = link.ProxyOff
	}
	if _, least, most := s.Protocol.IdleBounds(); s.IdleTimeout != 0 && (s.IdleTimeout < least || s.IdleTimeout > most) {
		return at.Property("idle_timeout").Errorf("idle_timeout: %s is out of range; %s to %s are allowed for %s", s.IdleTimeout, least, most, s.Protocol)
	}
	if s.Protocol == link.UDP && s.Probe != (link.Probe{}) {
		return at.Property("probe").Errorf("probe %s: the targets of a service of UDP can't be probed", s.Probe.Kind)
	}
	if err := link.CheckWarm(s.Warm, s.Protocol, s.Pin); err != nil {
		return at.Property("warm").Errorf("%v", err)
	}
	if err := link.CheckDatagrams(s.Protocol, s.Pin, s.ProxyProtocol); err != nil {
		return at.Property("protocol").Errorf("%v", err)
	}
	if !at.Has("visible") {
		s.Visible = s.AutoApprove
	}
	return visible(at, s)
}

// visible refuses to approve those who may not even ask.
func visible(at block.Position, s *link.Service) error {
	seen := make(map[link.Party]bool, len(s.Visible))
	for _, p := range s.Visible {
		seen[p] = true
	}
	for _, p := range s.AutoApprove {
		if !seen[link.Anyone] && !seen[p] {
			return at.Property("approve").Errorf("%s is approved but not visible; add it to visible at %s", p, at.Property("visible"))
		}
	}
	return nil
}
