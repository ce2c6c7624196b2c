package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// SystemFile says whom the programs of the machine ask (resolv.conf(5)).
const SystemFile = "/etc/resolv.conf"

// System are the servers of the machine. Its file is read again when it has changed. The zero value is ready.
type System struct {
	File string // "": [SystemFile]

	mu      sync.Mutex
	size    int64
	changed time.Time
	servers []netip.AddrPort
}

// Servers returns them, in the order of the file. The error says why there is none.
func (s *System) Servers() ([]netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.File
	if file == "" {
		file = SystemFile
	}
	at, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if s.servers != nil && at.Size() == s.size && at.ModTime().Equal(s.changed) {
		return s.servers, nil
	}
	servers, err := readSystem(file)
	if err != nil {
		return nil, err
	}
	s.servers, s.size, s.changed = servers, at.Size(), at.ModTime()
	return s.servers, nil
}

// mostServers is how many the system's own resolver takes (MAXNS).
const mostServers = 3

func readSystem(file string) ([]netip.AddrPort, error) {
	c, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(c.Port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%s: port %q", file, c.Port)
	}
	var all []netip.AddrPort
	for _, server := range c.Servers[:min(len(c.Servers), mostServers)] {
		if a, err := netip.ParseAddr(server); err == nil {
			all = append(all, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s names no server", file)
	}
	return all, nil
}

// Without returns the servers that aren't us, by what own says of each. The error says that there is none left.
func Without(servers []netip.AddrPort, own func(netip.AddrPort) bool) ([]netip.AddrPort, error) {
	others := slices.DeleteFunc(slices.Clone(servers), own)
	if len(others) == 0 {
		return nil, fmt.Errorf("%w: %v", ErrOurselves, servers)
	}
	return others, nil
}

// ErrOurselves is the error where every server is this node itself, which would answer with the addresses of endpoints.
var ErrOurselves = errors.New("each server for the names of targets is this node itself")
