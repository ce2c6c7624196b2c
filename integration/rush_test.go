package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rushLasts is how long a cache is asked at full rate by each network.
var rushLasts = flag.Duration("rush", time.Second, "how long each cache is asked at full rate")

const (
	// rushWindow is how many queries each of its clients has under way, rushClients how many of them a network has.
	rushWindow, rushClients = 48, 2
	// rushTries is how often a query is sent that isn't answered within rushPatience: caches drop what is too much, and mean it so.
	rushTries, rushPatience = 5, 2 * time.Second
	// leastRush is how many answers each of them has had at least, also on a machine with much else to do.
	leastRush = 5 * rushWindow
)

// rushed are names with another answer in each network. Each fifth is private in the first network alone, and each fifth in the second.
type rushed struct {
	names []string
	want  [2][]string // by network
}

// rush returns n services, as lines of a Corefile with the networks corp and branch, and their names and what those are.
func rush(n int) (lines string, r *rushed) {
	var b strings.Builder
	r = new(rushed)
	for i := range n {
		want := [2]string{fmt.Sprint("10.200.0.", 20+i), fmt.Sprint("10.201.0.", 20+i)}
		fmt.Fprintf(&b, "    linkservice s%d {\n        names   s%d.database.windows.net\n        target  10.20.0.4:1433\n", i, i)
		fmt.Fprint(&b, "        approve corp branch\n    }\n")
		for of, network := range []string{"corp", "branch"} {
			if i%5 == 3+of {
				want[of] = publicAddress
				continue
			}
			fmt.Fprintf(&b, "    linkendpoint s%d-%s {\n        service s%d\n        network %s\n        address %s\n    }\n",
				i, network, i, network, want[of])
		}
		for _, zone := range []string{"database.windows.net.", "privatelink.database.windows.net."} {
			r.names = append(r.names, fmt.Sprintf("s%d.%s", i, zone))
			r.want[0], r.want[1] = append(r.want[0], want[0]), append(r.want[1], want[1])
		}
	}
	return b.String(), r
}

// oneOf is whom to ask as a client of one network.
type oneOf struct {
	host *host
	addr string
	ecs  string // what the client's subnet is said to be; "": nothing
	// merges: who asks for a name while others do is answered in the spelling of one of them.
	merges bool
}

// inRush has clients of both networks ask at full rate, for all names in random order and spelling. Every answer must be that of the
// client's network; a query that isn't answered is sent again, and counted.
func (r *rushed) inRush(t *testing.T, what string, networks [2]oneOf) {
	t.Helper()
	seed := rand.Uint64()
	var wait sync.WaitGroup
	var mu sync.Mutex
	var answers [2]int
	again, wrong := 0, []string(nil)
	for of, to := range networks { // who has just been started finds the way to others by ARP, which takes a second at times
		if err := r.client(to, of, seed).rush(time.Now()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	began := time.Now()
	for of, to := range networks {
		for i := range rushClients {
			wait.Go(func() {
				c := r.client(to, of, seed+uint64(1+of*rushClients+i))
				err := c.rush(began.Add(*rushLasts))
				mu.Lock()
				defer mu.Unlock()
				answers[of] += c.answers
				again += c.again
				if err != nil {
					wrong = append(wrong, fmt.Sprintf("network %d: %v", of, err))
				}
			})
		}
	}
	wait.Wait()
	for _, w := range wrong {
		t.Errorf("%s, seed %d: %s", what, seed, w)
	}
	t.Logf("%s: %d and %d right answers in %v; %d queries were sent again", what, answers[0], answers[1],
		time.Since(began).Round(10*time.Millisecond), again)
}

// rusher is one client in a rush.
type rusher struct {
	*rushed
	oneOf
	of             int // its network
	conn           net.Conn
	random         *rand.Rand
	sent           [1 << 16]string // names by ID, as they were spelled
	index          [1 << 16]int
	next           uint16
	answers, again int
}

func (r *rushed) client(to oneOf, of int, seed uint64) *rusher {
	return &rusher{rushed: r, oneOf: to, of: of, random: rand.New(rand.NewPCG(seed, 1))}
}

// rush asks until a time, and for so many answers.
func (c *rusher) rush(end time.Time) error {
	if err := c.host.enter(func() (err error) { c.conn, err = net.Dial("udp", c.addr); return err }); err != nil {
		return err
	}
	defer c.conn.Close()
	buf := make([]byte, 4096)
	for c.answers < leastRush || time.Now().Before(end) {
		waits := make(map[uint16]bool, rushWindow)
		for range rushWindow {
			c.next++
			c.index[c.next] = c.random.IntN(len(c.names))
			c.sent[c.next] = c.spell(c.names[c.index[c.next]])
			waits[c.next] = true
		}
		for try := 0; len(waits) > 0; try++ {
			if try == rushTries {
				return fmt.Errorf("%d queries were sent %d times and never answered", len(waits), rushTries)
			}
			if try > 0 {
				c.again += len(waits)
			}
			for id := range waits {
				if err := c.send(id); err != nil {
					return err
				}
			}
			if err := c.conn.SetReadDeadline(time.Now().Add(rushPatience)); err != nil {
				return err
			}
			for len(waits) > 0 {
				n, err := c.conn.Read(buf)
				if err != nil {
					break // the time is over
				}
				id, err := c.judge(buf[:n])
				if err != nil {
					return err
				}
				if waits[id] { // else another answer to one that was sent again
					c.answers++
				}
				delete(waits, id)
			}
		}
	}
	return nil
}

// spell spells a name in random case (0x20).
func (c *rusher) spell(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] >= 'a' && b[i] <= 'z' && c.random.IntN(2) == 0 {
			b[i] -= 0x20
		}
	}
	return string(b)
}

func (c *rusher) send(id uint16) error {
	m := new(dns.Msg).SetQuestion(c.sent[id], dns.TypeA).SetEdns0(1232, false)
	m.Id = id
	if c.ecs != "" {
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24,
			Address: net.ParseIP(c.ecs).To4()}}
	}
	b, err := m.Pack()
	if err == nil {
		_, err = c.conn.Write(b)
	}
	return err
}

// judge reports what is wrong with an answer.
func (c *rusher) judge(b []byte) (uint16, error) {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return 0, fmt.Errorf("%x: %w", b, err)
	}
	name := c.sent[m.Id]
	if len(m.Question) != 1 || m.Question[0].Name != name && (!c.merges || !strings.EqualFold(m.Question[0].Name, name)) {
		return 0, fmt.Errorf("asked for %s: %v", name, m)
	}
	if want := c.want[c.of][c.index[m.Id]]; m.Rcode != dns.RcodeSuccess || lastA(m) != want {
		return 0, fmt.Errorf("%s is not %s, as the other network has %s: %v", name, want, c.want[1-c.of][c.index[m.Id]], m)
	}
	return m.Id, nil
}
