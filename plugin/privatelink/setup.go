package privatelink

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/plugin/internal/handover"
)

func init() { plugin.Register(name, setup) }

// setup parses; the node that answers come from is there after the start.
func setup(c *caddy.Controller) error {
	draft, err := handover.Of(c)
	if err != nil {
		return err
	}
	parsed, err := parse(c)
	if err != nil {
		return err
	}
	if !draft.Shared() { // else another node may declare it
		if err := parsed.checkNetwork(draft.Networks()); err != nil {
			return err
		}
	}
	for _, z := range parsed.zones {
		if err := draft.AddZones(z.at, z.rows...); err != nil {
			return err
		}
	}
	if err := parsed.checkMiss(draft.Zones()); err != nil {
		return err
	}
	p := &Privatelink{
		Snapshot: draft.Snapshot, Published: draft.Published, Healthy: draft.Healthy, HealthyAt: draft.HealthyAt, Stale: draft.Stale,
		Turn:     func() uint64 { return turnAt(time.Now()) },
		settings: parsed.settings, stats: shared,
	}
	config := dnsserver.GetConfig(c)
	c.Set(inBlock(c.ServerBlockIndex), true)
	draft.Copied(func() string {
		if config.Handler("transfer") == nil {
			return ""
		}
		return fmt.Sprintf("%s:%s %+v %+v", config.Zone, config.Port, p.settings, draft.Zones().Rows()) // of secondaries the zones
	})
	c.OnStartup(func() error {
		p.Forwards = config.Handler("forward") != nil
		if p.Forwards {
			server := strings.Join(append([]string{config.Zone}, config.ListenHosts...), " ") + ":" + config.Port
			p.Upstream = newUpstream(server, asks(p.Next), shared, draft.Snapshot, handover.NewLogger(name))
			p.Upstream.one = p.network != ""
		}
		p.Transfers, _ = config.Handler("transfer").(*transfer.Transfer)
		p.Tells = config.Handler("linkexit") != nil
		p.Zones = draft.Zones() // complete only now: any server block may add one
		p.enter(draft, config)
		return nil
	})
	c.OnShutdown(func() error {
		if p.Upstream != nil {
			p.Upstream.end()
		}
		return nil
	})
	(&fasts{word: parsed.fastpath, at: parsed.at, p: p, config: config, keys: len(c.ServerBlockKeys)}).register(c)
	config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		p.Next = next
		return p
	})
	return nil
}

// asks returns the first handler that neither remembers answers nor makes others of them: a probe meets what a query of its
// name would, also where a zone of this server block has it.
func asks(h plugin.Handler) plugin.Handler {
	for h != nil && (h.Name() == "linkexit" || h.Name() == "cache") {
		h, _ = reflect.Indirect(reflect.ValueOf(h)).FieldByName("Next").Interface().(plugin.Handler)
	}
	return h
}

// parsed is one directive of the Corefile.
type parsed struct {
	settings
	at       block.Position
	zones    []addedZones
	missAt   map[link.Name]block.Position // where missIn says so
	missSeen bool                         // a policy without zones was given
	fastpath string                       // on, off, plugins, or "" for on where it changes nothing
}

// parse reads the directive, which a server block has once.
func parse(c *caddy.Controller) (*parsed, error) {
	var d *parsed
	for c.Next() {
		if d != nil {
			return nil, block.Here(c, name).Errorf("given already at %s and may be given once in a server block", d.at)
		}
		d = &parsed{settings: defaults(), missAt: make(map[link.Name]block.Position)}
		var err error
		if d.at, err = block.Parse(c, d.directive(c)); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// directive is the table of the directive's properties.
func (d *parsed) directive(c *caddy.Controller) block.Directive {
	return block.Directive{Name: name, Properties: []block.Property{
		{Name: "ttl", Usage: "SECONDS", Min: 1, Max: 1, Set: func(args []string) error {
			n, err := block.Int(args[0], 1, 3600)
			d.ttl = uint32(n)
			return err
		}},
		{Name: "network", Usage: "NAME", Min: 1, Max: 1, Set: func(args []string) (err error) {
			d.network, err = block.Reference(args[0])
			return err
		}},
		{Name: "miss", Usage: "pass|nxdomain|refuse [ZONE...]", Min: 1, Max: block.Any, Repeat: true, Set: func(args []string) error {
			return d.setMiss(block.Here(c, name), args[0], args[1:])
		}},
		{Name: "zone", Usage: "PRIVATE|none PUBLIC", Min: 2, Max: 2, Repeat: true, Set: func(args []string) error {
			return d.addZone(block.Here(c, name), args[0], args[1])
		}},
		{Name: "zones", Usage: "FILE", Min: 1, Max: 1, Repeat: true, Set: func(args []string) error {
			return d.addFile(block.Here(c, name), args[0])
		}},
		{Name: "ecs_from", Usage: "PREFIX...", Min: 1, Max: block.Any, Set: func(args []string) (err error) {
			d.ecsFrom, err = block.List(args, block.Prefix)
			return err
		}},
		{Name: "ptr", Usage: "on|off", Min: 1, Max: 1, Set: func(args []string) error {
			word, err := block.Word(args[0], "on", "off")
			d.ptr = word == "on"
			return err
		}},
		{Name: "fastpath", Usage: "on|off|plugins", Min: 1, Max: 1, Set: func(args []string) (err error) {
			d.fastpath, err = block.Word(args[0], "on", "off", "plugins")
			return err
		}},
	}}
}

// setMiss takes a miss line.
func (d *parsed) setMiss(at block.Position, word string, zones []string) error {
	p, err := block.Word(word, missPass, missNXDomain, missRefuse)
	if err != nil {
		return err
	}
	if len(zones) == 0 {
		if d.missSeen {
			return errors.New("a policy without zones is given already; name the zones of this one")
		}
		d.miss, d.missSeen = p, true
		return nil
	}
	names, err := block.List(zones, block.Name)
	if err != nil {
		return err
	}
	for _, zone := range names {
		if first, ok := d.missAt[zone]; ok {
			return fmt.Errorf("zone %s has a policy already at %s", zone, first)
		}
		d.missIn[zone], d.missAt[zone] = p, at
	}
	return nil
}

// checkNetwork refuses a network that the Corefile doesn't declare: what a Corefile speaks of is in it. An
// ID of several segments is one of the control API's.
func (d *parsed) checkNetwork(declared []link.ID) error {
	if d.network == "" || strings.Contains(string(d.network), "/") || slices.Contains(declared, d.network) {
		return nil
	}
	if len(declared) == 0 {
		return d.at.Property("network").Errorf("network: %s is not declared; this Corefile declares no network", d.network)
	}
	names := make([]string, len(declared))
	for i, id := range declared {
		names[i] = string(id)
	}
	return d.at.Property("network").Errorf("network: %s is not declared; declared are %s", d.network, strings.Join(names, ", "))
}

// checkMiss refuses policies for what is no zone.
func (d *parsed) checkMiss(zones *link.Zones) error {
	for _, zone := range slices.Sorted(maps.Keys(d.missAt)) {
		switch apex := zones.Zone([]byte(zone)); apex {
		case zone:
		case "":
			return d.missAt[zone].Errorf("miss: %s is no privatelink zone; add it with zone %s PUBLIC", zone, zone)
		default:
			return d.missAt[zone].Errorf("miss: %s is no privatelink zone; did you mean %s?", zone, apex)
		}
	}
	return nil
}
